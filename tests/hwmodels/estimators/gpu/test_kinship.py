"""What measured devices say: all of themselves, most of siblings, little of strangers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.kinship import Kin, Law, distance, likeness, shares
from hwmodels.estimators.gpu.learned import Learned, Source, Spread
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.trees import Trees
from hwmodels.fit.trees import exported_histogram

MEASURED = ("a100-sxm-80gb", "b200-sxm", "h100-sxm", "l40s")


def _kin(name: str) -> Kin:
    return Kin.of(load_device(name))


def test_distance_is_that_of_the_figures() -> None:
    """An H200 is an H100 with a memory 4800 / 3350 times as fast, which stands in two ratios, and
    60 MB of L2 for 50 MiB."""
    gaps = np.log2([4800 / 3350, 4800 / 3350, 60e6 / (50 * 2**20)])
    found = distance(_kin("h100-sxm"), _kin("h200-sxm"))
    assert found == pytest.approx(np.linalg.norm(gaps), abs=0.03)


def test_one_known_device_has_the_weight_of_its_likeness() -> None:
    """Simple kriging with one point: w = k, doubt 1 - k^2."""
    first, second = _kin("h100-sxm"), _kin("b200-sxm")
    k = 0.9 * np.exp(-0.5 * (distance(first, second) / 2.5) ** 2)
    found = shares(second, [first], [True])
    assert found.weights == pytest.approx([k])
    assert found.doubt == pytest.approx(1 - k**2)
    assert likeness(first, second, Law(reach=1e9, other=0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_device_is_what_was_measured(name: str) -> None:
    known = [_kin(one) for one in MEASURED]
    found = shares(_kin(name), known, [True] * 4)
    assert found.weights == pytest.approx([float(one == name) for one in MEASURED], abs=1e-9)
    assert found.doubt == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "sibling"),
    [("h200-sxm", "h100-sxm"), ("gb200", "b200-sxm"), ("a100-sxm-40gb", "a100-sxm-80gb"),
     ("l4", "l40s")],
)  # fmt: skip
def test_siblings_rule_and_strangers_are_in_doubt(name: str, sibling: str) -> None:
    known = [_kin(one) for one in MEASURED]
    found = shares(_kin(name), known, [True] * 4)
    assert MEASURED[int(np.argmax(found.weights))] == sibling
    assert found.weights.max() > 0.75
    assert found.doubt < shares(_kin("rtx-5090"), known, [True] * 4).doubt < 1
    assert shares(_kin("mi300x"), known, [True] * 4).doubt == 1, "another instruction set"


def test_doubt_grows_with_distance_and_has_no_step() -> None:
    known = _kin("h100-sxm")
    doubts = []
    for octaves in np.linspace(0, 8, 81):
        figures = (known.figures[0] + float(octaves), *known.figures[1:])
        doubts.append(shares(replace(known, figures=figures), [known], [True]).doubt)
    steps = np.diff(doubts)
    assert doubts[0] == pytest.approx(0)
    assert doubts[-1] > 0.99
    assert (steps > 0).all()
    assert steps.max() < 0.05


def test_a_processor_learns_nothing_from_gpus() -> None:
    found = shares(_kin("xeon-8480"), [_kin("l40s")], [True])
    assert found.weights == pytest.approx([0])
    assert found.doubt == 1


def test_a_runtime_that_was_not_measured_counts_less() -> None:
    """A device without the runtime still counts most for itself, others with it a little."""
    known = [_kin(one) for one in MEASURED]
    found = shares(_kin("b200-sxm"), known, [True, False, True, True])
    assert 0.7 < found.weights[1] < 1
    assert found.weights[2] > 0.05
    assert 0 < found.doubt < 0.2


def _constant(value: float) -> Trees:
    nothing = np.zeros(1)
    leaf = np.zeros(1, dtype=np.int32)
    return Trees(
        roots=leaf, feature=leaf - 1, threshold=nothing, left=leaf, right=leaf, value=nothing,
        offset=value, depth=0,
    )  # fmt: skip


@pytest.fixture(name="learned")
def learned_fixture() -> Learned:
    """An H100 whose bf16 GEMMs take e^0.2 of the skeleton's time, give or take e^-3."""
    source = Source(
        kin=_kin("h100-sxm"), trees=_constant(0.2), scale=_constant(-3.0),
        kernels=(("vllm", 2.0, 2.0, 0.0),),
    )  # fmt: skip
    return Learned(
        runtimes=("vllm",), sources={"h100-sxm": source}, seen=Spread(low=-1.0, high=2.0),
        unseen=Spread(low=-0.3, high=0.4, slope=0.5),
    )  # fmt: skip


def _features(width: float) -> np.ndarray:
    features = np.zeros((1, len(FEATURES)))
    features[:, [FEATURES.index("input_bytes"), FEATURES.index("weight_bytes")]] = width
    return features


def test_intervals_join_shapes_and_devices(learned: Learned) -> None:
    device = _kin("b200-sxm")
    k = likeness(device, _kin("h100-sxm"))
    share = np.full(1, 0.6)
    assert learned.correction(_features(2.0), "vllm", device) == pytest.approx([0.2 * k])
    doubt = learned.doubt(_features(2.0), "vllm", device, share)
    far = 0.4 * np.exp(0.5 * 0.6)
    expected = np.sqrt((2 * np.exp(-3)) ** 2 + (1 - k**2) * far**2)
    assert doubt.high == pytest.approx([expected])
    part = doubt.of_part(np.full(1, 0.5))
    assert part.high == pytest.approx([2 * expected]), "of half of the time"


def test_a_type_that_nobody_measured_is_left_to_the_skeleton(learned: Learned) -> None:
    device = _kin("h100-sxm")
    assert learned.correction(_features(1.0), "vllm", device) == pytest.approx([0])
    assert learned.correction(_features(2.05), "vllm", device) == pytest.approx([0.2])
    doubt = learned.doubt(_features(1.0), "vllm", device, np.zeros(1))
    assert doubt.low == pytest.approx([-0.3])
    assert doubt.high == pytest.approx([0.4])


def test_shipped_intervals_are_narrow_on_siblings_and_wide_on_strangers() -> None:
    artefact = load_artefact()
    features = _features(2.0)
    widths = []
    for name in ("h100-sxm", "h200-sxm", "l4", "rtx-5090", "mi300x"):
        doubt = artefact.doubt(features, "vllm", load_device(name), np.zeros(1))
        widths.append(float(np.exp(doubt.high - doubt.low)[0]))
    assert widths == sorted(widths)
    assert widths[-1] > 1.25 * widths[0]


def test_histogram_trees_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(600, 4))
    target = inputs[:, 0] * 2 + np.abs(inputs[:, 1])
    boosted = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(inputs, target)
    ours = exported_histogram(boosted).predict(inputs)
    assert ours == pytest.approx(boosted.predict(inputs), abs=1e-5)
