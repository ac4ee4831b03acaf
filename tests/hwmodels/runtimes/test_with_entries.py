"""Runtimes with other entries than their files have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.errors import RuntimeModeError
from hwmodels.runtimes.load import load_runtime, runtime_with


def test_only_what_is_named_differs() -> None:
    shipped = load_runtime("torch-compile")
    assert shipped.fuses_pointwise
    found = runtime_with("torch-compile", {"epilogue": [], "fuses_pointwise": False})
    assert found == replace(shipped, epilogue=(), fuses_pointwise=False)
    assert runtime_with("torch-compile", {}) is shipped


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"epilog": []}, "epilog"), ({"epilogue": 3}, "epilogue"), ({"modes": [{}]}, "modes.0")],
)
def test_what_no_file_may_have_is_refused_by_its_field(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(RuntimeModeError, match=said):
        runtime_with("torch-compile", changes)


def test_an_unknown_runtime_is_one_error() -> None:
    with pytest.raises(RuntimeModeError, match="unknown runtime"):
        runtime_with("torch-compil", {"epilogue": []})
