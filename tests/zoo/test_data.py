"""Splits are disjoint, deterministic and never trained on."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dse import zoo
from dse.zoo import held_out

PARTS = ("calibration", "search", "report")
TRAINED_ON = Path(__file__).parents[2] / "studies" / "zoo" / "trained_on.json"


@pytest.mark.parametrize("name", ["byte-gpt", "fashion-resnet"])
def test_splits_share_no_sample(name: str) -> None:
    splits = zoo.splits(name)
    samples = [
        {row.tobytes() for row in next(iter(getattr(splits, part).inputs.values()))}
        for part in PARTS
    ]
    for first, second in itertools.combinations(samples, 2):
        assert not first & second


@pytest.mark.parametrize("name", ["byte-gpt", "fashion-resnet"])
def test_splits_are_deterministic(name: str) -> None:
    first, second = zoo.splits(name), zoo.splits(name)
    for part in PARTS:
        one, other = getattr(first, part), getattr(second, part)
        np.testing.assert_equal(dict(one.inputs), dict(other.inputs))
        np.testing.assert_array_equal(one.labels, other.labels)


def test_labels_are_the_next_bytes() -> None:
    split = zoo.splits("byte-gpt", sequence=64).search
    assert split.labels is not None
    np.testing.assert_array_equal(split.inputs["tokens"][:, 1:], split.labels[:, :-1])
    assert split.inputs["tokens"].shape[1] == 64


def test_a_limit_keeps_samples_spread_over_the_split() -> None:
    whole = zoo.splits("byte-gpt").report.inputs["tokens"]
    part = zoo.splits("byte-gpt", limits={"report": 10}).report.inputs["tokens"]
    np.testing.assert_array_equal(part, whole[np.arange(10) * len(whole) // 10])


def test_fashion_sizes() -> None:
    splits = zoo.splits("fashion-resnet")
    assert [len(getattr(splits, part).labels) for part in PARTS] == [256, 1000, 1000]
    assert splits.report.inputs["image"].shape == (1000, 1, 28, 28)
    assert splits.report.inputs["image"].dtype == np.float32


def test_held_out_lists_are_disjoint() -> None:
    for kind in ("modules", "topics"):
        names = [name for split in held_out.SPLITS.values() for name in getattr(split, kind)]
        assert len(names) == len(set(names))


def test_nothing_held_out_was_trained_on() -> None:
    trained = json.loads(TRAINED_ON.read_text())
    stems = {part.removesuffix(".py").lower() for name in trained for part in name.split("/")}
    for split in held_out.SPLITS.values():
        assert not stems & set(split.modules)
        assert not stems & {f"test_{module}" for module in split.modules}
        assert not stems & {f"topic:{topic}" for topic in split.topics}


def test_this_python_has_the_held_out_text() -> None:
    for split in held_out.SPLITS.values():
        found = held_out.texts(split)
        assert len(found) == len(split.modules) + len(split.topics)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(zoo.ZooError, match="did you mean 'byte-gpt'"):
        zoo.resolve("byte-gtp")
    with pytest.raises(KeyError):
        zoo.resolve("byte-gtp")


def test_shape_has_no_splits() -> None:
    with pytest.raises(zoo.ZooError, match="has no weights"):
        zoo.splits("llama-3-8b")


def test_importing_the_zoo_loads_no_torch() -> None:
    code = "import sys, dse.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_image_folder_reads_classes_in_name_order(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for folder, level in (("ant", 0), ("bee", 255)):
        (tmp_path / folder).mkdir()
        image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / folder / "0.png")
    images, labels = zoo.read_image_folder(tmp_path, size=(24, 24))
    assert images.shape == (2, 3, 24, 24)
    assert labels.tolist() == [0, 1]
    np.testing.assert_allclose(images[:, 0, 0, 0], [-127 / 128, 1.0])
