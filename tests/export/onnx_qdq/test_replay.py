"""Deep networks, in which one value on the other side of a tie puts others there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dse.errors import ExportError
from dse.evaluate.setup import build_evaluator
from dse.export import deliver
from dse.export.base import Recipe
from dse.export.onnx_qdq import verify
from dse.export.onnx_qdq.replay import Arrays, Run
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from dse.zoo.split import Split, Splits
from tests.export.recipes import recipe_of

WIDTH, LAYERS = 512, 6
"""One value in 512 is a step off: a fiftieth of the noise where it is, all of it layers later."""


def deep(folder: Path) -> Path:
    """Products and rectifiers in a chain that keeps the size of what it is given."""
    rng = np.random.default_rng(0)
    nodes, stored, value = [], [], "x"
    for layer in range(LAYERS):
        weight = (rng.normal(size=(WIDTH, WIDTH)) * np.sqrt(2 / WIDTH)).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"s{layer}"], f"fc{layer}"))
        nodes.append(helper.make_node("Relu", [f"s{layer}"], [f"h{layer}"], f"relu{layer}"))
        value = f"h{layer}"
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes, "deep", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape)], stored,
    )  # fmt: skip
    path = folder / "deep.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def nudged(values: int, run: Run, layer: int = 0) -> Run:
    """ONNX Runtime, with so many values of an activation a step away in every sample."""

    def off(path: Path, feeds: Arrays) -> tuple[str, Arrays | str]:
        model = onnx.load(path)
        stored = {one.name: one for one in model.graph.initializer}
        made = [
            (place, node)
            for place, node in enumerate(model.graph.node)
            if node.op_type == "DequantizeLinear" and node.input[0] not in stored
        ]
        if not made:  # the network in full precision
            return run(path, feeds)
        place, node = made[layer]
        away = np.zeros(WIDTH, np.float32)
        away[:values] = numpy_helper.to_array(stored[node.input[1]])
        model.graph.initializer.append(numpy_helper.from_array(away, "away"))
        add = helper.make_node("Add", ["exact", "away"], [node.output[0]], "nudge")
        node.output[0] = "exact"
        model.graph.node.insert(place + 1, add)
        other = path.with_name(f"nudged_{path.name}")
        onnx.save(model, other)
        return run(other, feeds)

    return off


def scaled(run: Run, factor: Callable[[Path], float]) -> Run:
    """A runtime whose outputs are so many times those of another one, by file."""

    def off(path: Path, feeds: Arrays) -> tuple[str, Arrays | str]:
        name, found = run(path, feeds)
        assert not isinstance(found, str)
        return name, {key: one * np.float32(factor(path)) for key, one in found.items()}

    return off


def deep_recipe(folder: Path, *, weights_alone: bool = False) -> Recipe:
    model = open_model(str(deep(folder)))
    x = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
    split = Split(inputs={"x": x}, labels=None, kind="images")
    splits = Splits(calibration=split, search=split, report=split)
    scheme = "w8a16" if weights_alone else "int8:static"
    assignment = uniform_assignment(model.analysis.regions, scheme, model.analysis.ties)
    evaluator = build_evaluator(
        model.analysis, Data(source="given", calibration=8, search=8, report=8),
        model.analysis.by_key, tuple(assignment), splits=splits,
    )  # fmt: skip
    return recipe_of(evaluator, assignment)


def test_ties_that_grow_through_a_network_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value in 512 a step off where ties put it; outputs are as far apart as two roundings."""
    recipe = deep_recipe(tmp_path)
    run = nudged(1, verify.RUNTIMES["onnxruntime"])
    monkeypatch.setattr(verify, "RUNTIMES", {"onnxruntime": run})
    checks = deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)
    (ran,) = [one for one in checks if one.compared == "outputs"]
    assert f"each of {LAYERS} activations agrees where it is quantized" in ran.note
    assert ran.difference is not None
    assert ran.difference > 0


@pytest.mark.parametrize("layer", [0, 3])
def test_a_site_that_differs_is_named_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    recipe = deep_recipe(tmp_path)
    run = nudged(64, verify.RUNTIMES["onnxruntime"], layer)
    monkeypatch.setattr(verify, "RUNTIMES", {"onnxruntime": run})
    with pytest.raises(ExportError, match=f"more than ties explain, in fc{layer}/in0$"):
        deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)


def test_who_computes_another_network_in_full_precision_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own difference was allowed four times over, so that any file agreed with it."""
    recipe = deep_recipe(tmp_path, weights_alone=True)
    run = scaled(verify.RUNTIMES["onnxruntime"], lambda path: -1.0)
    monkeypatch.setattr(verify, "RUNTIMES", {"onnxruntime": run})
    checks = deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)
    (said,) = [one for one in checks if "otherwise already" in one.note]
    assert said.compared == "nothing"
    assert said.difference is None
    assert not [one for one in checks if one.compared == "outputs"]


def test_without_activations_there_is_nothing_to_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights alone: outputs that differ stay a refusal, and no site vouches for them."""
    recipe = deep_recipe(tmp_path, weights_alone=True)
    run = verify.RUNTIMES["onnxruntime"]
    run = scaled(run, lambda path: 1.0 if path.name == "deep.onnx" else 1.01)
    monkeypatch.setattr(verify, "RUNTIMES", {"onnxruntime": run})
    with pytest.raises(ExportError, match="more than ties explain, in h5"):
        deliver(recipe, "onnx-qdq", tmp_path / "q.onnx", verify=True)
