"""Devices with their runtimes as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwmodels.devices.load import DEVICES
from hwmodels.errors import DeviceError, RuntimeModeError
from hwmodels.runtimes.load import RUNTIMES
from hwmodels.runtimes.platform import load_platform, split_platform


@pytest.mark.parametrize(
    ("text", "device", "runtime"),
    [
        ("h100-sxm", "h100-sxm", None),
        ("h100-sxm:vllm", "h100-sxm", "vllm"),
        ("h100-sxm:my/own.yaml", "h100-sxm", "my/own.yaml"),
        ("mine.yaml", "mine.yaml", None),
        ("mine.yaml:vllm", "mine.yaml", "vllm"),
        ("/a/mine.yml:own.yaml", "/a/mine.yml", "own.yaml"),
        ("/a:b/mine.yaml", "/a:b/mine.yaml", None),
        ("/a:b/mine.yaml:/c:d/own.yaml", "/a:b/mine.yaml", "/c:d/own.yaml"),
    ],
)
def test_device_and_runtime_part_at_the_colon(text: str, device: str, runtime: str | None) -> None:
    assert split_platform(text) == (device, runtime)


@pytest.mark.parametrize("text", ["", ":", ":vllm", "h100-sxm:", "mine.yaml:"])
def test_a_text_without_device_or_runtime_says_what_is_expected(text: str) -> None:
    with pytest.raises(DeviceError, match="expected DEVICE or DEVICE:RUNTIME"):
        split_platform(text)


def test_the_named_runtime_wins_then_the_given_one_then_the_device_s() -> None:
    assert load_platform("h100-sxm:vllm", runtime="sglang").runtime.name == "vllm"
    assert load_platform("h100-sxm", runtime="sglang").runtime.name == "sglang"
    assert load_platform("h100-sxm").runtime.name == "torch-eager"
    assert load_platform("ethos-u55").runtime.name == "vela"


def test_files_and_names_mix(tmp_path: Path) -> None:
    device, runtime = tmp_path / "d.yaml", tmp_path / "r.yaml"
    device.write_bytes(DEVICES.path("l4").read_bytes())
    runtime.write_bytes(RUNTIMES.path("sglang").read_bytes())
    found = load_platform(f"{device}:{runtime}")
    assert (found.device.name, found.runtime.name) == ("l4", "sglang")
    assert found.runtime_origin == str(runtime)
    assert load_platform(f"{device}:vllm").runtime.name == "vllm"


def test_unknown_names_of_either_are_told_apart() -> None:
    with pytest.raises(DeviceError, match="unknown device 'h100-smx'; did you mean 'h100-sxm'"):
        load_platform("h100-smx:vllm")
    with pytest.raises(RuntimeModeError, match="unknown runtime 'vlm'; did you mean 'vllm'"):
        load_platform("h100-sxm:vlm")
