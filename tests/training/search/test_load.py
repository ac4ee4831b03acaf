"""Spaces of methods: mistakes are found together, each with its field."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import SpaceError
from dse.space import kind
from dse.space.kind import is_training, kind_of
from dse.training.search.load import load_training_space, training_space
from hwmodels import yaml_file
from tests.training.search.spaces import GRIDS, SPACES, content

FOLDER = SPACES.parent / "dse" / "training" / "methods"


def refused(**changes: object) -> str:
    with pytest.raises(SpaceError) as caught:
        training_space(content(**changes), origin="SPACE.yaml")
    return str(caught.value)


def variable(**fields: object) -> dict[str, object]:
    return {"grid": {"at": ["activation@wgrad"], "options": GRIDS, **fields}}


def other(option: dict[str, object]) -> dict[str, object]:
    return variable(options={"a": {}, "b": option})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variables": variable(at=["activatoin"])}, "grid.at: no such role: 'activatoin'"),
        ({"variables": variable(at=["activation@dgrad"])}, "no part in pass 'dgrad'"),
        ({"workload": {"name": "digits-mpl"}}, "workload.name: unknown workload 'digits-mpl'"),
        ({"quick": {"fixed": ["grid"]}}, "quick.fixed: no variable 'grid'"),
        ({"beside": "quartet_ii"}, "beside: 'quartet_ii' is none of `named`"),
        ({"objectives": ["step_s", "gap"]}, "expected gap first"),
        ({"objectives": ["gap", "latency_s"]}, "no such column: latency_s"),
        ({"variables": other({"element": "e9m9"})}, "unknown encoding 'e9m9'"),
        ({"variables": other({"format": "nvpf4"})}, "unknown format 'nvpf4'"),
        ({"variables": variable(options={"a": {}})}, "variables.grid.options"),
        ({"sedes": 3}, "sedes: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_field(changes: dict[str, object], words: str) -> None:
    assert words in refused(**changes)


def test_all_mistakes_of_variables_are_told_at_once() -> None:
    found = refused(
        workload={"name": "nothing"}, variables=variable(at=["weight@wgrad", "master"])
    )
    assert len(found.splitlines()) == 3


def test_a_file_is_read_once_for_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    whole = yaml_file.read_text

    def counted(path: Path, error: type[Exception]) -> str:
        read.append(path)
        return whole(path, error)

    monkeypatch.setattr(kind, "read_text", counted)
    assert kind_of(SPACES / "fp4.yaml") == "space"
    assert read == [SPACES / "fp4.yaml"]


def test_the_kind_of_a_file_is_told_by_its_word(tmp_path: Path) -> None:
    assert is_training(SPACES / "fp8-training.yaml")
    assert not is_training(SPACES / "fp4.yaml")
    assert not is_training(tmp_path / "missing.yaml")
    assert kind_of(SPACES / "fp8-training.yaml") == "training"
    assert kind_of(SPACES / "fp4.yaml") == "space"
    assert kind_of(FOLDER / "nvfp4.yaml") == "method"
    torn = tmp_path / "torn.yaml"
    torn.write_text("kind: [training")
    assert not is_training(torn)


def test_quick_changes_what_it_says() -> None:
    space = load_training_space(SPACES / "fp4-training.yaml")
    quick = space.quickened()
    assert quick.workload == space.quick.workload
    assert quick.search.trials == space.quick.trials
    assert quick.search.seed == space.search.seed
    assert quick.variables == space.variables
