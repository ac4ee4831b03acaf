"""A space that names several ranges of activations: which one a search takes, and what that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pandas as pd
import pytest

import dse
from dse.errors import SpaceError
from dse.explore.measure.session import prepare
from dse.space.load import parse_space
from dse.zoo.split import Split, Splits

WIDTH, CLASSES = 32, 8
SPACE = """
model: m.onnx
data: {source: d.npz, calibration: 64, search: 64, report: 64, batch: 64}
scenario: {phases: {call: {dims: {batch: 1}}}}
targets: [{device: edge-npu, runtime: free}]
"""
MENU = "candidates: [{use: [w8a8_int8_static, {name: w4, weight: int4_channel, \
activation: 'uint8:static'}]}]"


def _network(folder: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) / 6 for shape in ((WIDTH, WIDTH), (WIDTH, CLASSES))]
    held = [
        onnx.numpy_helper.from_array(w.astype(np.float32), f"w{number}")
        for number, w in enumerate(weights)
    ]
    graph = oh.make_graph(
        [
            oh.make_node("MatMul", ["x", "w0"], ["h"]),
            oh.make_node("Relu", ["h"], ["r"]),
            oh.make_node("MatMul", ["r", "w1"], ["logits"]),
        ],
        "g",
        [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", WIDTH])],
        [oh.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", CLASSES])],
        held,
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")


def _splits(peak: float) -> Splits:
    """Normal values; one of calibration's is `peak`, which no other split has."""
    rng = np.random.default_rng(1)
    parts: dict[str, Split] = {}
    for part in ("calibration", "search", "report"):
        x = rng.normal(size=(64, WIDTH)).astype(np.float32)
        if part == "calibration":
            x[0, 0] = peak
        parts[part] = Split(inputs={"x": x}, labels=None, kind="images")
    return Splits(**parts)


def _searched(folder: Path, ranges: str, *, peak: float = 300.0) -> dict[str, Any]:
    space = parse_space(f"{SPACE}{ranges}\n{MENU}\nsearch: {{trials: 4}}", origin="s")
    space = space.model_copy(update={"model": str(folder / "m.onnx")})
    dse.search(None, space, data=_splits(peak), out=folder / "run")
    found: dict[str, Any] = json.loads((folder / "run" / "manifest.json").read_text())
    return found


def test_the_range_that_loses_least_on_the_search_split_is_taken_everywhere(
    tmp_path: Path,
) -> None:
    _network(tmp_path)
    manifest = _searched(tmp_path, "ranges: [absmax, percentile99.5]")
    losses = manifest["ranges"]
    # A value of 300 takes all but one of the codes from the others.
    assert losses["percentile99.5"] < losses["absmax"] / 10
    assert manifest["space"]["ranges"] == ["percentile99.5"]
    trials = pd.read_csv(tmp_path / "run" / "trials.csv").set_index("name")
    wide = trials.loc["w8a8_int8_static", "quality_loss"]
    assert wide == pytest.approx(losses["percentile99.5"], rel=1e-6)
    # Narrow weights have it, too: with the whole range their activations alone lose more.
    assert trials.loc["w4", "quality_loss"] < losses["absmax"]


def test_what_comparing_takes_is_booked(tmp_path: Path) -> None:
    _network(tmp_path)
    spent = _searched(tmp_path, "ranges: [absmax, mse, percentile99.5]")["forward_equivalents"]
    assert spent["ranges"] == pytest.approx(3.0, rel=0.05)
    assert spent["total"] == pytest.approx(sum(v for k, v in spent.items() if k != "total"))


def test_one_range_is_taken_without_a_look_and_none_is_the_whole_one(tmp_path: Path) -> None:
    _network(tmp_path)
    found: dict[str, pd.Series] = {}
    for ranges in ("", "ranges: [absmax]", "ranges: [percentile99.5]"):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        _network(folder)
        manifest = _searched(folder, ranges)
        assert "ranges" not in manifest["forward_equivalents"]
        assert not manifest["ranges"]
        trials = pd.read_csv(folder / "run" / "trials.csv").set_index("name")
        found[ranges] = trials["quality_loss"]
    pd.testing.assert_series_equal(found[""], found["ranges: [absmax]"])
    assert (found["ranges: [percentile99.5]"] < found[""]).all()


def test_a_search_is_resumed_under_the_range_that_it_took(tmp_path: Path) -> None:
    _network(tmp_path)
    _searched(tmp_path, "ranges: [absmax, percentile99.5]")
    before = pd.read_csv(tmp_path / "run" / "trials.csv")
    space = parse_space(
        f"{SPACE}ranges: [absmax, percentile99.5]\n{MENU}\nsearch: {{trials: 4}}", origin="s"
    ).model_copy(update={"model": str(tmp_path / "m.onnx")})
    dse.search(None, space, data=_splits(300.0), out=tmp_path / "run", resume=True)
    pd.testing.assert_frame_equal(before, pd.read_csv(tmp_path / "run" / "trials.csv"))


def test_a_range_that_a_candidate_names_is_its_own(tmp_path: Path) -> None:
    _network(tmp_path)
    menu = (
        "candidates: [{use: [{name: own, weight: int8_channel, "
        "activation: 'uint8:static:percentile99'}, w8a8_int8_static]}]"
    )
    space = parse_space(f"{SPACE}ranges: [mse]\n{menu}", origin="s")
    space = space.model_copy(update={"model": str(tmp_path / "m.onnx")})
    session = prepare(space, origin="s", folder=tmp_path, splits=_splits(1.0))
    (variable, *_) = session.design.problem.variables
    assert [choice.quantizers["activation"].name for choice in variable.choices] == [
        "uint8:percentile99.0:static", "uint8:mse:static",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ranges", "menu", "said"),
    [
        ("ranges: [mse, static]", MENU, "'static' is no range: expected absmax"),
        ("ranges: [output_mse]", MENU, "'output_mse' is no range"),
        ("ranges: [percentile0]", MENU, "'percentile0' is no range"),
        ("ranges: [mse]", "candidates: [{use: [bf16, w8a8_int8]}]", "leave it out"),
    ],
)
def test_what_is_no_range_is_refused(tmp_path: Path, ranges: str, menu: str, said: str) -> None:
    _network(tmp_path)
    space = parse_space(f"{SPACE}{ranges}\n{menu}", origin="s.yaml")
    space = space.model_copy(update={"model": str(tmp_path / "m.onnx")})
    with pytest.raises(SpaceError, match=rf"s\.yaml: ranges: .*{said}"):
        prepare(space, origin="s.yaml", folder=tmp_path, splits=_splits(1.0))
