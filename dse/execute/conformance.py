"""ONNX's own node tests, run against the operator table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.inliner
import torch
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from torch import Tensor

from dse.errors import DseError
from dse.execute.operators.dtype import BY_CODE, to_torch
from dse.execute.operators.operator import Value
from dse.execute.program.compiler import bodies
from dse.execute.program.program import Program
from dse.graph.ir.graph import Graph
from dse.graph.onnx.convert import Source, domain_name, graph_of

Status = Literal["passed", "failed", "unsupported", "excluded"]

EXCLUDED: Mapping[str, str] = dict.fromkeys(
    (
        "test_training_dropout",
        "test_training_dropout_default",
        "test_training_dropout_default_mask",
        "test_training_dropout_mask",
    ),
    "Dropout in training mode with ratio > 0 is an error here, not a random mask",
)
"""Cases of supported operators that are not run, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one case."""

    name: str
    operators: frozenset[tuple[str, str]]
    """(domain, operator type) of the nodes of its model, bodies included."""
    status: Status
    detail: str = ""


def outcomes(device: str = "cpu") -> Iterator[Outcome]:
    """The outcome of every node test of the installed onnx."""
    with warnings.catch_warnings():
        # numpy warns where the cases overflow on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        cases = collect_testcases(None)
    for case in cases:
        yield outcome(case, device)


def outcome(case: TestCase, device: str = "cpu") -> Outcome:
    """Runs one case."""
    graph = _graph(case.model)
    operators = frozenset(_operators(graph))

    def done(status: Status, detail: str = "") -> Outcome:
        return Outcome(name=case.name, operators=operators, status=status, detail=detail)

    if case.name in EXCLUDED:
        return done("excluded", EXCLUDED[case.name])
    try:
        program = Program(graph, device=device)
    except DseError as error:
        return done("unsupported", str(error))
    try:
        faults = [fault for inputs, outputs in case.data_sets
                  for fault in _faults(case, program, inputs, outputs)]  # fmt: skip
    except DseError as error:
        return done("failed", str(error))
    return done("failed", "; ".join(faults)) if faults else done("passed")


def _operators(graph: Graph) -> Iterator[tuple[str, str]]:
    for node in graph.nodes:
        yield node.domain, node.op_type
        for body in bodies(node):
            yield from _operators(body)


def _graph(model: onnx.ModelProto) -> Graph:
    if model.functions:
        model = onnx.inliner.inline_local_functions(model, convert_version=False)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    opsets = {domain_name(entry.domain): entry.version for entry in model.opset_import}
    return graph_of(model.graph, Source(path=Path(model.graph.name), opsets=opsets))


def _value(data: object) -> Value:
    if data is None:
        return None
    if isinstance(data, list):
        return [to_torch(_array(item)) for item in data]
    return to_torch(_array(data))


def _array(data: object) -> np.ndarray:
    if isinstance(data, onnx.TensorProto):
        data = onnx.numpy_helper.to_array(data)
    array: np.ndarray = np.asarray(data)
    return array


def _faults(
    case: TestCase, program: Program, inputs: Sequence[object], expected: Sequence[object]
) -> Iterator[str]:
    names = [value.name for value in case.model.graph.input]
    feeds = {name: _value(data) for name, data in zip(names, inputs, strict=False)}
    results = program.run(feeds).outputs
    defined = _defined(case, inputs)
    for (name, result), data in zip(results.items(), expected, strict=True):
        wanted = _value(data)
        pairs = zip(_listed(result), _listed(wanted), strict=False)
        if len(_listed(result)) != len(_listed(wanted)):
            yield f"{name}: {len(_listed(result))} elements, expected {len(_listed(wanted))}"
        for one, other in pairs:
            fault = _difference(one, other, case, defined)
            if fault:
                yield f"{name}: {fault}"


def _defined(case: TestCase, inputs: Sequence[object]) -> Tensor | None:
    """Elements that ONNX defines a Cast of, or None where it defines all.

    Floats beyond an integer's range are open (Cast, "fixed point: undefined if OOR"); the cases
    have what numpy and ml_dtypes make of them, which differs between their versions.
    """
    if not {node.op_type for node in case.model.graph.node} <= {"Cast", "CastLike"}:
        return None
    source = _value(inputs[0])
    to = BY_CODE.get(case.model.graph.output[0].type.tensor_type.elem_type)
    limits = to.integer_range if to else None
    if limits is None or not isinstance(source, Tensor) or not source.is_floating_point():
        return None
    low, high = limits
    return (source.double() > low - 1) & (source.double() < high + 1)


def _listed(value: Value) -> list[Tensor]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _difference(
    result: Tensor, expected: Tensor, case: TestCase, defined: Tensor | None
) -> str | None:
    """The difference of two tensors; 16-bit results may be two units in the last place apart."""
    if result.dtype != expected.dtype or result.shape != expected.shape:
        got = f"{result.dtype} {list(result.shape)}"
        return f"{got}, expected {expected.dtype} {list(expected.shape)}"
    if defined is not None:
        result, expected = result.cpu()[defined], expected[defined]
    relative = case.rtol
    if result.is_floating_point() and result.element_size() == 2:
        relative = max(relative, 2 * torch.finfo(result.dtype).eps)
    wide, other = _wide(result), _wide(expected)
    if torch.allclose(wide, other, rtol=relative, atol=case.atol, equal_nan=True):
        return None
    return f"largest difference {(wide - other).abs().max().item():g}"


def _wide(tensor: Tensor) -> Tensor:
    return tensor.cpu() if tensor.is_complex() else tensor.cpu().double()
