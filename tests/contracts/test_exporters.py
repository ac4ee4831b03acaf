"""What every exporter promises, ours or another's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from dse.errors import ExportError
from dse.export import EXPORTERS, Exporter, Recipe, deliver, exporter
from dse.export.neutral import NeutralRecipe
from dse.model import Model, open_model
from hwmodels import plugins
from tests.export import folders
from tests.export.recipes import mlp_recipe

CASES = {
    "integers": ("int8_channel", "int8:static"),
    "corrected": ("int4_channel:bias_corrected", "uint8:static"),
    "learned": ("int4_channel:gptq", "fp16"),
    "blocks": ("mxfp4", None),
    "two levels": ("nvfp4", None),
    "dynamic": ("e4m3_channel", "e4m3_token"),
    "posits": ("posit8_1", "posit8_1:static"),
    "codebook": ("nf4_g64", None),
    "transformed": ("int8_channel:smooth(0.5)", "int8:static:smooth(0.5)"),
}
"""Recipes that some targets say and some refuse."""
OF_FOLDERS = {
    "folder": {"proj/in1": "e4m3_tensor", "proj/in0": "e4m3_tensor:static"},
    "folder, blocks": {"down_proj/in1": "nvfp4", "o_proj/in1": "nvfp4"},
    "folder, one projection": {"q_proj/in1": "e4m3_tensor"},
    "folder, groups": {"proj/in1": "int4@g32/bf16", "q_proj/in1": "mxfp8"},
    "folder, packed": {"proj/in1": "q8_0", "q_proj/in1": "q4_1"},
}
"""The same for Hugging Face folders, by the end of a site's key."""


Make = Callable[[str], Recipe]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The recipe of a case, made once."""
    where = tmp_path_factory.mktemp("models")

    @cache
    def model() -> Model:
        return open_model(str(folders.folder("llama", where / "tiny")))

    @cache
    def made(case: str) -> Recipe:
        if case in OF_FOLDERS:
            return folders.recipe(model(), OF_FOLDERS[case])
        return mlp_recipe(where, *CASES[case])

    return made


@pytest.fixture(params=[*CASES, *OF_FOLDERS])
def recipe(request: pytest.FixtureRequest, make: Make) -> Recipe:
    return make(request.param)


def accepted(target: str, make: Make) -> Recipe:
    """A recipe that a target takes: of an ONNX file, or of a folder."""
    recipes = map(make, (*CASES, *OF_FOLDERS))
    return next(one for one in recipes if not exporter(target).can_express(one))


CONSUMERS = {"litert": "ai_edge_litert", "mlx": "mlx", "torchao": "torchao"}
"""What reads a target's files, where it is no dependency of another part."""


@pytest.fixture(params=EXPORTERS)
def target(request: pytest.FixtureRequest) -> str:
    found = str(request.param)
    if found in CONSUMERS:
        pytest.importorskip(CONSUMERS[found])
    return found


def test_a_recipe_is_written_with_the_emulators_numbers_or_refused(
    recipe: Recipe, target: str, tmp_path: Path
) -> None:
    refused = exporter(target).can_express(recipe)
    assert refused == exporter(target).can_express(recipe)
    assert not list(tmp_path.iterdir()), "asking writes nothing"
    out = tmp_path / "made" / "out.bin"
    if not refused:
        checks = deliver(recipe, target, out, verify=True)
        assert out.exists()
        assert any(check.difference is not None for check in checks)
        stray = [path for path in out.parent.iterdir() if not path.name.startswith("out")]
        assert not stray
        return
    sites = recipe.assignment.as_dict()
    for one in refused:
        assert one.reason
        assert one.instead
        assert not one.site or sites[one.site].name == one.format
    with pytest.raises(ExportError, match=f"{target} cannot express"):
        deliver(recipe, target, out)
    assert not list(tmp_path.iterdir())


def test_every_target_says_what_it_is(target: str) -> None:
    found = EXPORTERS[target]
    assert isinstance(found, Exporter)
    assert 20 < len(found.summary) < 100


def test_what_is_written_twice_is_the_same(target: str, make: Make, tmp_path: Path) -> None:
    recipe = accepted(target, make)
    for name in ("first", "second"):
        deliver(recipe, target, tmp_path / name / "out.bin")
    first, second = (
        [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        for name in ("first", "second")
    )
    # safetensors writes its metadata in any order
    assert [sorted(path.read_bytes()) for path in first] == [
        sorted(path.read_bytes()) for path in second
    ]


def test_an_interruption_leaves_what_was_there(
    target: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = accepted(target, make)
    (tmp_path / "out.bin").write_text("older")
    kind = type(EXPORTERS[target])
    write = kind.write

    def interrupted(self: object, recipe: Recipe, out: Path) -> None:
        write(self, recipe, out)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "write", interrupted)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        deliver(recipe, target, tmp_path / "out.bin")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "out.bin").read_text() == "older"


def test_a_folder_with_files_is_not_written_over(target: str, make: Make, tmp_path: Path) -> None:
    recipe = accepted(target, make)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ExportError, match="is a folder with files in it"):
        deliver(recipe, target, tmp_path)


@pytest.mark.parametrize(
    ("found", "works"), [(NeutralRecipe(), True), (NeutralRecipe, False), (1, False)]
)
def test_a_package_brings_an_exporter(
    found: object, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint(name="mine", value="package.module:MINE", group="dse.exporters")
    monkeypatch.setattr(
        plugins, "entry_points", lambda **asked: EntryPoints([point]).select(**asked)
    )
    monkeypatch.setattr(EntryPoint, "load", lambda point: found)
    if works:
        assert exporter("mine") is found
    else:
        with pytest.raises(ExportError, match=r"--to mine: .* is no exporter"):
            exporter("mine")
    with pytest.raises(ExportError, match="did you mean 'mine'"):
        exporter("mini")
