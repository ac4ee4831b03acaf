"""Recipes without a run: a model, what stands at its sites, and samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.export.base import Recipe
from dse.graph.ir.assignment import Assignment
from dse.model import Model, open_model
from dse.space.schema import Data
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer

DEPTH, WIDTH, SAMPLES = 64, 32, 4
KINDS = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
}


def recipe_of(
    evaluator: Evaluator,
    assignment: Assignment,
    name: str = "net",
) -> Recipe:
    """What an export of a run would see."""
    inputs = evaluator.splits.report.inputs
    return Recipe(
        name=name,
        program=evaluator.program,
        assignment=assignment,
        bound=evaluator.bound(assignment),
        samples={key: torch.from_numpy(values) for key, values in inputs.items()},
    )


def mlp(folder: Path, dtype: str = "float32", opset: int = 17, *, after: str = "Relu") -> Model:
    """MatMul, Add, Relu (or Clip to 0 and 1), Gemm of one float type, saved in a folder.

    Casts stand around a bfloat16 one: numpy has no arrays to feed it.
    """
    rng = np.random.default_rng(0)
    kind = KINDS[dtype]
    bounds = {} if after == "Relu" else {"low": 0.0, "high": 1.0}
    given = [helper.make_tensor(name, kind, [], [at]) for name, at in bounds.items()]
    outside = onnx.TensorProto.FLOAT if dtype == "bfloat16" else kind

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        values = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        if kind == onnx.TensorProto.BFLOAT16:
            return helper.make_tensor(name, kind, shape, values.ravel())
        return numpy_helper.from_array(values.astype(dtype), name)

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["x16"], name="before", to=kind),
            helper.make_node("MatMul", ["x16", "w1"], ["h0"], name="first"),
            helper.make_node("Add", ["h0", "b1"], ["h1"], name="bias"),
            helper.make_node(after, ["h1", *bounds], ["h2"], name="relu"),
            helper.make_node("Gemm", ["h2", "w2", "b2"], ["y16"], name="second", transB=1),
            helper.make_node("Cast", ["y16"], ["y"], name="after", to=outside),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", outside, ["batch", DEPTH])],
        [helper.make_tensor_value_info("y", outside, ["batch", 10])],
        [constant("w1", DEPTH, WIDTH), constant("b1", WIDTH), constant("w2", 10, WIDTH),
         constant("b2", 10), *given],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / f"mlp_{dtype}_{opset}.onnx"
    onnx.save(model, path)
    return open_model(str(path))


def samples(dtype: str = "float32") -> Splits:
    """Normal inputs of `mlp`, the same for every split."""
    x = np.random.default_rng(1).standard_normal((SAMPLES, DEPTH))
    x = x.astype("float16" if dtype == "float16" else "float32")
    split = Split(inputs={"x": x}, labels=None, kind="images")
    return Splits(calibration=split, search=split, report=split)


def mlp_recipe(
    folder: Path,
    weight: str | Quantizer,
    activation: str | None,
    *,
    dtype: str = "float32",
    opset: int = 17,
    after: str = "Relu",
) -> Recipe:
    """The net with one format for its weights and one for its activations."""
    of_weight = quantizer(weight) if isinstance(weight, str) else weight
    model = mlp(folder, dtype, opset, after=after)
    found = {
        site.key: of_weight if site.role == "weight" else quantizer(str(activation))
        for site in model.analysis.sites
        if site.role == "weight" or (site.role == "activation" and activation)
    }
    assignment = Assignment.of(found)
    evaluator = build_evaluator(
        model.analysis,
        Data(source="given", calibration=SAMPLES, search=SAMPLES, report=SAMPLES),
        model.analysis.by_key,
        tuple(assignment),
        splits=samples(dtype),
    )
    return recipe_of(evaluator, assignment)
