"""`dse init --device KIND`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwmodels.devices.load import load_device
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused


@pytest.mark.parametrize("kind", ["array", "cpu", "gpu", "npu"])
def test_a_template_prices_a_network_as_it_stands(dse: Dse, tmp_path: Path, kind: str) -> None:
    chip = tmp_path / "chip.yaml"
    made = dse("init", "--device", kind, "-o", chip)
    assert made.code == 0, made.err
    assert f"wrote {chip}; put your figures in" in made.out
    assert load_device(chip).kind == kind
    priced = dse("predict", "zoo:fashion-resnet", "--device", chip, "--dim", "batch=1")
    assert priced.code == 0, priced.err
    assert "chip" in priced.out
    assert "assumed" in dse("devices", chip).out


def test_a_file_that_exists_is_kept(dse: Dse, tmp_path: Path) -> None:
    chip = tmp_path / "chip.yaml"
    chip.write_text("mine")
    assert_refused(dse("init", "--device", "gpu", "-o", chip), "exists already")
    assert chip.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected MODEL, for its space, or --device KIND"),
        (("--device", "gpus"), "did you mean 'gpu'"),
        (("--device", "h100-sxm:vllm"), "for a space give MODEL"),
        (("--device", "gpu", "--device", "cpu"), "expected one kind of device"),
        (("--device", "gpu", "--dim", "batch=1"), "--data and --dim are of a MODEL's space"),
        (("zoo:fashion-resnet", "--device", "gpu"), "--device gpu: is a kind of device"),
    ],
)
def test_a_model_or_a_kind_is_asked_for(
    dse: Dse, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "new.yaml"
    assert_refused(dse("init", *arguments, "-o", out), words)
    assert not out.exists()
