"""Targets of a space: labels are prefixes of columns, so they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import SpaceError
from dse.explore.run import parse_targets
from dse.space.load import load_space, validated
from dse.space.schema import Target, named_apart

SPACE = {
    "model": "zoo:byte-gpt",
    "data": {"source": "zoo:byte-gpt"},
    "candidates": [{"use": ["bf16"]}],
}


def _labels(*targets: object) -> list[str]:
    return [one.label for one in validated({**SPACE, "targets": targets}, origin="x").targets]


def test_one_device_under_two_runtimes_is_two_targets() -> None:
    assert _labels("l4:vllm", "l4:sglang", "t4") == ["l4-vllm", "l4-sglang", "t4"]
    assert [one.label for one in parse_targets(["l4:vllm", "l4"])] == ["l4-vllm", "l4"]
    assert _labels("l4:vllm") == ["l4"]


def test_names_apart_are_the_same_a_second_time() -> None:
    once = named_apart((Target(device="l4", runtime="vllm"), Target(device="l4")))
    assert named_apart(once) == once


@pytest.mark.parametrize(
    "targets",
    [("l4", "l4"), ("l4:vllm", "l4:vllm"), ({"device": "l4", "name": "t4"}, "t4")],
)
def test_two_targets_of_one_name_are_refused(targets: tuple[object, ...]) -> None:
    with pytest.raises(SpaceError, match=r"x: targets: two targets are named .*; give each"):
        _labels(*targets)


def test_a_target_on_the_command_line_twice_is_refused() -> None:
    with pytest.raises(SpaceError, match="targets l4 l4: two targets are named l4"):
        parse_targets(["l4", "l4"])


def test_a_runtime_on_the_command_line_may_be_a_file() -> None:
    (target,) = parse_targets(["l4:own.yaml"])
    assert target.runtime == str(Path("own.yaml").absolute())
    (target,) = parse_targets(["own.yaml:vllm"])
    assert (target.device, target.label) == (str(Path("own.yaml").absolute()), "own")


def test_infinite_shares_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "model: a\ndata: {source: a}\ntargets: [l4]\ncandidates: [{use: [bf16]}]\n"
        "scenario: {phases: {a: {share: .inf}}}\n"
    )
    with pytest.raises(SpaceError, match=r"scenario\.phases\.a\.share: .*finite"):
        load_space(path)
