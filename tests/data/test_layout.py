"""Inputs whose samples are not in front, or that have none, are fed as the graph takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dse.data.layout import batch_name, laid_out, pooled, samples_first
from dse.data.splits import Sizes, given_splits, load_splits
from dse.errors import DataError
from dse.evaluate.batches import batches
from dse.zoo.split import Split

X = np.arange(10 * 3, dtype=np.float32).reshape(10, 3)
STATE = np.arange(2 * 10 * 4, dtype=np.float32).reshape(2, 10, 4)
FLAG = np.array([True])


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        ([("seq", "batch", 4)], "batch"),
        ([("N", 3), (2, "N", 4)], "N"),
        ([("batch_size", "seq"), ("batch_size", "past + 1")], "batch_size"),
        ([(1, 3), None], None),
        ([("a", 3), ("b", 3), ("b", 4)], "b"),
    ],
)
def test_the_axis_of_samples_is_named_alike(shapes: list, name: str | None) -> None:
    assert batch_name(shapes) == name


@pytest.mark.parametrize(
    ("shapes", "arrays"),
    [
        ({"x": ("batch", 3), "state": (2, "batch", 4)}, {"x": X, "state": STATE}),
        ({"x": (None, 3), "state": (2, None, 4)}, {"x": X, "state": STATE}),
        ({"state": (2, "batch", 4), "x": ("batch", 3)}, {"x": X, "state": STATE}),
        ({"x": ("batch", 3), "flag": (1,)}, {"x": X, "flag": FLAG}),
        ({"x": ("batch", 3), "rate": ()}, {"x": X, "rate": np.int64(16000)}),
        ({"x": ("batch", 3), "flag": (1,)}, {"x": X, "flag": np.ones((10, 1), bool)}),
        ({"x": ("seq", "batch", 4)}, {"x": STATE}),
        ({"x": (1, 3), "flag": (1,)}, {"x": X, "flag": FLAG}),
        ({"x": None}, {"x": X}),
    ],
)
@pytest.mark.parametrize("size", [1, 4])
def test_a_batch_is_a_part_of_what_the_graph_takes(shapes: dict, arrays: dict, size: int) -> None:
    pool = samples_first(
        {name: np.asarray(one) for name, one in arrays.items()}, None, shapes, "d"
    )
    assert pool.samples == 10
    seen: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    for batch in batches(laid_out(pool, shapes, "d"), size, "cpu"):
        for name, value in batch.feeds.items():
            seen[name].append(value.numpy())
    for name, shape in shapes.items():
        axis = pool.axes.get(name, 0)
        if axis is None:
            assert all(one.shape == shape for one in seen[name])
        else:
            assert np.array_equal(np.concatenate(seen[name], axis), arrays[name])


@pytest.mark.parametrize(
    ("shapes", "arrays", "says"),
    [
        ({"x": ("batch", 3), "y": ("batch", 3)}, {"x": X, "y": X[:7]}, r"y: .* \(7, 3\) for 10"),
        ({"x": ("batch", 3), "f": (1,)}, {"x": X, "f": np.arange(10)[:, None]}, r"f: the graph"),
        ({"f": ()}, {"f": np.float32(1)}, "no input has an axis that counts samples"),
        ({}, {}, "no input has an axis"),
    ],
)
def test_counts_that_differ_are_refused(shapes: dict, arrays: dict, says: str) -> None:
    arrays = {name: np.asarray(one) for name, one in arrays.items()}
    with pytest.raises(DataError, match=says):
        samples_first(arrays, None, shapes, "d")


@pytest.mark.parametrize("labels", [np.zeros(7, int), np.int64(3)])
def test_labels_are_one_row_a_sample(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match="labels: expected one row for each of 10 samples"):
        samples_first({"x": X}, np.asarray(labels), {"x": ("batch", 3)}, "d")


def test_samples_with_different_flags_go_one_at_a_time() -> None:
    split = Split(
        inputs={"x": X, "flag": np.arange(10)[:, None]}, labels=None, kind="images",
        axes={"flag": None},
    )  # fmt: skip
    assert [int(batch.feeds["flag"][0]) for batch in batches(split, 1, "cpu")] == list(range(10))
    with pytest.raises(DataError, match=r"flag: has one value for all samples.*batch: 1"):
        list(batches(split, 2, "cpu"))


@pytest.mark.parametrize(
    ("value", "refused"), [(-np.inf, False), (np.inf, True), (np.nan, True), (-3e38, False)]
)
def test_masks_are_numbers(value: float, refused: bool) -> None:
    """-inf suppresses positions in additive masks; NaN and Inf are mistakes."""
    values = X.copy()
    values[2, 1] = value
    split = Split(inputs={"x": values}, labels=None, kind="images")
    if not refused:
        laid_out(split, {"x": ("batch", 3)}, "d")
        return
    with pytest.raises(DataError, match="x: contains NaN or Inf"):
        laid_out(split, {"x": ("batch", 3)}, "d")


@pytest.mark.parametrize("values", [np.array(["a"] * 10), X.astype(complex)])
def test_what_is_no_number_is_refused(values: np.ndarray) -> None:
    split = Split(inputs={"x": values}, labels=None, kind="images")
    with pytest.raises(DataError, match="expected numbers"):
        laid_out(split, {"x": None}, "d")


def test_arrays_of_a_program_mean_what_they_mean_in_an_archive(tmp_path: Path) -> None:
    arrays = {"x": X, "state": STATE, "flag": FLAG, "labels": np.arange(10)}
    shapes = {"x": ("batch", 3), "state": (2, "batch", 4), "flag": (1,)}
    sizes = Sizes(calibration=2, search=3, report=4)
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    stored = load_splits("d.npz", sizes, sequence=1, inputs=shapes, folder=tmp_path)
    given = given_splits(arrays, sizes, shapes)
    for part in ("calibration", "search", "report"):
        one, other = getattr(stored, part), getattr(given, part)
        assert (
            (one.kind, one.axes)
            == (other.kind, other.axes)
            == ("images", {"state": 1, "flag": None})
        )
        assert np.array_equal(one.labels, other.labels)
        for name in shapes:
            assert np.array_equal(one.inputs[name], other.inputs[name])


def test_arrays_that_no_input_takes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    found = pooled({"x": X, "label": np.arange(10)}, {"x": ("batch", 3)}, "d")
    assert found.labels is None
    assert "d: array label is left out" in caplog.text
    assert "did you mean 'labels'" in caplog.text


def test_an_archive_that_is_none_is_refused_without_advice_to_trust_it(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"abc")
    sizes = Sizes(calibration=1, search=1, report=1)
    with pytest.raises(DataError, match=r"archive that numpy.savez writes: it is"):
        load_splits("d.npz", sizes, sequence=1, inputs={"x": ("n", 3)}, folder=tmp_path)


def test_another_order_of_bytes_means_the_same(tmp_path: Path) -> None:
    """Archives written by other processors, or by HDF5 and FITS readers, are big-endian."""
    labels = np.arange(10)
    np.savez(tmp_path / "there.npz", x=X.astype(">f4"), labels=labels.astype(">i8"))
    sizes = Sizes(calibration=2, search=4, report=4)
    shapes = {"x": ("batch", 3)}
    found = load_splits("there.npz", sizes, sequence=1, inputs=shapes, folder=tmp_path)
    for split in (found.calibration, found.search, found.report):
        assert split.labels is not None
        assert split.inputs["x"].dtype.isnative
        assert split.labels.dtype.isnative
        assert torch.equal(torch.from_numpy(split.inputs["x"]), torch.tensor(X[split.labels]))
