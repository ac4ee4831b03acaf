"""Splits of every kind of source: disjoint, deterministic, and wrong ones refused."""

from pathlib import Path

import numpy as np
import pytest

from dse.data import Sizes, load_splits
from dse.errors import DataError
from dse.zoo import ZooError
from dse.zoo.split import Splits

SIZES = Sizes(calibration=2, search=3, report=4)
IMAGES = {"image": ("batch", 1, 2, 2)}
TOKENS = {"tokens": ("batch", "sequence")}


def _load(source: str, folder: Path, inputs: dict = IMAGES, sequence: int = 4) -> Splits:
    return load_splits(source, SIZES, sequence=sequence, inputs=inputs, folder=folder)


def _images(count: int = 20) -> np.ndarray:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 1, 2, 2)


def test_parts_are_disjoint_and_the_same_every_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=_images(), labels=np.arange(20))
    first, second = (_load("d.npz", tmp_path) for _ in range(2))
    parts = [first.calibration, first.search, first.report]
    seen = [set(part.labels.tolist()) for part in parts]
    assert [len(labels) for labels in seen] == [2, 3, 4]
    assert len(set.union(*seen)) == 9
    for part in parts:
        assert (part.inputs["image"][:, 0, 0, 0] == part.labels * 4).all()
    assert (first.search.labels == second.search.labels).all()


@pytest.mark.parametrize(("steps", "kind"), [((20,), "images"), ((20, 4), "tokens")])
def test_one_integer_a_sample_makes_no_text(tmp_path: Path, steps: tuple, kind: str) -> None:
    """A diffusion model takes images and the number of a time step."""
    np.savez(tmp_path / "d.npz", image=_images(), step=np.zeros(steps, np.int64))
    inputs = IMAGES | {"step": ("batch", *steps[1:])}
    assert _load("d.npz", tmp_path, inputs).search.kind == kind


def test_a_text_file_is_bytes_with_the_next_byte_as_label(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefghij" * 20)
    splits = _load("t.txt", tmp_path, TOKENS)
    tokens, labels = splits.search.inputs["tokens"], splits.search.labels
    assert tokens.shape == (3, 4)
    assert (tokens[:, 1:] == labels[:, :-1]).all()


def test_a_function_gives_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef data():\n    return {'image': np.ones((9, 1, 2, 2), 'f4')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert _load("mine:data", tmp_path).report.inputs["image"].shape == (4, 1, 2, 2)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"imago": _images()}, "missing image; did you mean 'imago'"),
        ({"image": _images(8)}, "has 8 samples.*need 9"),
        ({"image": _images().reshape(20, 1, 4, 1)}, r"takes \('batch', 1, 2, 2\)"),
        ({"image": np.full((20, 1, 2, 2), np.nan, np.float32)}, "NaN or Inf"),
        ({"image": np.array([None] * 20)}, "plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict, says: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=says):
        _load("d.npz", tmp_path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing.npz", "no such file"),
        ("what", "no such data"),
        ("os:nothing", "importable module:function"),
        ("torn.npz", "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_read_says_what_was_expected(
    tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(DataError, match=says):
        _load(source, tmp_path)


def test_an_unknown_zoo_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="byte-gpt"):
        _load("zoo:byte-gtp", tmp_path)
