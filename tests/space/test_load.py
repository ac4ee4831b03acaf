"""Space files: every mistake at once, each with file, field and the nearest valid name."""

from pathlib import Path

import pytest

from dse.errors import SpaceError
from dse.space.load import load_space, parse_space, question

GOOD = """
# Does it load?
# It should.
model: zoo:byte-gpt
data: {source: zoo:byte-gpt}
targets: [{device: h100-sxm, runtime: vllm}]
candidates: [{use: [bf16, {name: mine, weight: int4_g128, activation: bf16}]}]
""".strip()


def test_a_good_file_becomes_a_space(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    space = load_space(path)
    assert space.targets[0].label == "h100-sxm"
    assert [use if isinstance(use, str) else use.name for use in space.candidates[0].use] == [
        "bf16",
        "mine",
    ]
    assert question(GOOD) == "Does it load? It should."


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ("{device: h100-sxm, runtim: vllm}", "targets.0.runtim", "did you mean 'runtime'"),
        ("{runtime: vllm}", "targets.0.device", "required"),
        ("{device: 3}", "targets.0.device", "got 3"),
    ],
)
def test_a_wrong_field_is_named(wrong: str, field: str, says: str) -> None:
    text = GOOD.replace("{device: h100-sxm, runtime: vllm}", wrong)
    with pytest.raises(SpaceError) as caught:
        parse_space(text, origin="my.yaml")
    assert str(caught.value).startswith(f"my.yaml: {field}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("search: {trials: true}", "search.trials"),
        (
            "scenario: {phases: {call: {share: true, dims: {batch: 1}}}}",
            "scenario.phases.call.share",
        ),
        ("scenario: {phases: {call: {dims: {batch: true}}}}", "scenario.phases.call.dims"),
    ],
)
def test_a_flag_is_no_number(more: str, field: str) -> None:
    """Python takes `true` for 1: one trial, a batch of one."""
    with pytest.raises(SpaceError) as caught:
        parse_space(f"{GOOD}\n{more}", origin="my.yaml")
    assert str(caught.value) == f"my.yaml: {field}: expected a number, got true"


def test_all_mistakes_are_reported_at_once() -> None:
    text = GOOD.replace("data: {source", "dta: 1\ndata: {sorce").replace("weight:", "wieght:")
    with pytest.raises(SpaceError) as caught:
        parse_space(text, origin="x")
    lines = str(caught.value).splitlines()
    fields = [line.split(": ")[1] for line in lines]
    assert fields == ["data.source", "data.sorce", "candidates.0.use.1.wieght", "dta"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", r"x\.yaml: line \d, column \d: not YAML"),
        ("- a", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_text_that_is_no_space_says_why(text: str, says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        parse_space(text, origin="x.yaml")


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text(GOOD)
    with pytest.raises(SpaceError, match=r"did you mean '.*smoke\.yaml'"):
        load_space(tmp_path / "smok.yaml")
