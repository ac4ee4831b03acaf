"""Splits of every kind of source: disjoint, deterministic, and wrong ones refused."""

from pathlib import Path

import numpy as np
import pytest

from dse.data import Sizes, load_splits
from dse.errors import DataError
from dse.text.reader import TextReader
from dse.text.tokenizer import read_tokenizer
from dse.zoo import ZooError
from dse.zoo.split import Split, Splits
from tests.text import toy

SIZES = Sizes(calibration=2, search=3, report=4)
IMAGES = {"image": ("batch", 1, 2, 2)}
TOKENS = {"tokens": ("batch", "sequence")}


def _load(source: str, folder: Path, inputs: dict = IMAGES, sequence: int = 4) -> Splits:
    return load_splits(source, SIZES, sequence=sequence, inputs=inputs, folder=folder)


def _images(count: int = 20) -> np.ndarray:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 1, 2, 2)


def _labels(part: Split) -> np.ndarray:
    assert part.labels is not None
    return part.labels


def test_parts_are_disjoint_and_the_same_every_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=_images(), labels=np.arange(20))
    first, second = (_load("d.npz", tmp_path) for _ in range(2))
    parts = [first.calibration, first.search, first.report]
    seen = [set(_labels(part).tolist()) for part in parts]
    assert [len(labels) for labels in seen] == [2, 3, 4]
    assert len(set.union(*seen)) == 9
    for part in parts:
        assert (part.inputs["image"][:, 0, 0, 0] == _labels(part) * 4).all()
    assert (_labels(first.search) == _labels(second.search)).all()


@pytest.mark.parametrize(("steps", "kind"), [((20,), "images"), ((20, 4), "tokens")])
def test_one_integer_a_sample_makes_no_text(tmp_path: Path, steps: tuple, kind: str) -> None:
    """A diffusion model takes images and the number of a time step."""
    np.savez(tmp_path / "d.npz", image=_images(), step=np.zeros(steps, np.int64))
    inputs = IMAGES | {"step": ("batch", *steps[1:])}
    assert _load("d.npz", tmp_path, inputs).search.kind == kind


def test_a_text_file_is_bytes_with_the_next_byte_as_label(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefghij" * 20)
    splits = _load("t.txt", tmp_path, TOKENS)
    tokens, labels = splits.search.inputs["tokens"], _labels(splits.search)
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
        ("os:nothing", "a module of Python itself"),
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


@pytest.mark.parametrize("source", ["t.txt", "t.npy"])
def test_tokens_of_another_vocabulary_are_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "t.txt").write_text("abcdefghij" * 20)
    np.save(tmp_path / "t.npy", np.arange(200) + 900)
    with pytest.raises(DataError, match=r"1000 entries.*tokenizer"):
        load_splits(
            source, SIZES, sequence=4, inputs=TOKENS, folder=tmp_path, vocabulary=1000
        )  # fmt: skip


def test_a_tokenizer_makes_tokens_of_text(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(toy.save(tmp_path / "model"))
    reader = TextReader(tokenizer=tokenizer, context=64, causal=True)
    (tmp_path / "t.txt").write_text(toy.TEXT * 4)
    splits = load_splits(
        "t.txt", SIZES, sequence=4, inputs={"input_ids": ("batch", "sequence")},
        folder=tmp_path, vocabulary=128, text=reader,
    )  # fmt: skip
    tokens = tokenizer.encode(toy.TEXT * 4)
    for part in (splits.calibration, splits.search, splits.report):
        for row in part.inputs["input_ids"].tolist():
            assert any(tokens[at : at + 4] == row for at in range(0, len(tokens), 4))


def test_documents_need_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "abc"}')
    with pytest.raises(DataError, match="came without a tokenizer"):
        load_splits("t.jsonl", SIZES, sequence=4, inputs=TOKENS, folder=tmp_path)


def test_what_is_not_needed_is_not_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=_images(4), labels=np.arange(4))
    needed = Sizes(calibration=0, search=0, report=4)
    splits = load_splits(
        "d.npz", SIZES, sequence=4, inputs=IMAGES, folder=tmp_path, needed=needed
    )  # fmt: skip
    assert (splits.calibration.samples, splits.report.samples) == (0, 4)


def test_the_report_split_is_the_same_with_and_without_calibration(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=_images(8), labels=np.arange(8))
    found = [
        _labels(load_splits(
            "d.npz", SIZES, sequence=4, inputs=IMAGES, folder=tmp_path,
            needed=Sizes(calibration=count, search=0, report=4),
        ).report)
        for count in (0, 2)
    ]  # fmt: skip
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_in_the_order_of_axes_that_the_graph_takes(
    tmp_path: Path, channels: int
) -> None:
    pictures = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for index in range(5):
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            pictures.fromarray(pixels).save(tmp_path / "p" / name / f"{index}.png")
    first = _load("p", tmp_path, {"x": ("batch", channels, 16, 12)})
    last = _load("p", tmp_path, {"x": ("batch", 16, 12, channels)})
    assert last.report.inputs["x"].shape == (4, 16, 12, channels)
    assert np.array_equal(np.moveaxis(first.report.inputs["x"], 1, -1), last.report.inputs["x"])
    with pytest.raises(DataError, match="1 or 3 channels"):
        _load("p", tmp_path, {"x": ("batch", 16, 12, 8)})
