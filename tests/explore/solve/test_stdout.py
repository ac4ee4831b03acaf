from __future__ import annotations

import ctypes

import pytest

from dse.explore.solve.stdout import without_stdout


def test_what_native_code_prints_is_lost_and_the_rest_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    c_library = ctypes.CDLL(None)
    print("before")
    with without_stdout():
        c_library.puts(b"noise")
    print("after")
    c_library.puts(b"music")
    c_library.fflush(None)
    assert capfd.readouterr().out.split() == ["before", "after", "music"]


def test_an_error_inside_does_not_keep_the_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="inside"), without_stdout():
        raise ValueError("inside")
    print("after")
    assert capfd.readouterr().out == "after\n"
