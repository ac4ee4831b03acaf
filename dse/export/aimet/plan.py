"""A model and its encodings, decided before anything is written.

Source: AIMET's encoding specification 2.0.0: a list of tensors by name, with the attributes of
ONNX's QuantizeLinear (`output_dtype`, `y_scale`, `y_zero_point`, `axis`, `block_size`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.onnx_qdq.constant import Codes
from dse.export.onnx_qdq.exporter import edited, unwritable
from dse.export.onnx_qdq.plan import Pair, Placement, Plan, StoredValues, Sum
from dse.export.onnx_qdq.plan import plan_of as qdq_plan

VERSION = "2.0.0"
FLOATS = {"float8_e4m3fn": "float8e4m3fn", "float8_e5m2": "float8e5m2"}
"""Types of scaled floats in AIMET, by that of numpy."""
KNOWN = "integers, e4m3 and e5m2 with scales, static per tensor for activations, are written"
Encoding = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Encodings:
    """The content of the folder; whole only where nothing is refused."""

    plan: Plan
    """The model's own edits: weights on their grids, casts, corrected means."""
    by_site: dict[str, Encoding] = field(default_factory=dict)
    """By the key of the site that is quantized."""
    refused: list[Refusal] = field(default_factory=list)

    def model(self, recipe: Recipe) -> ir.Model:
        """The model in floats."""
        return edited(recipe, self.plan)

    def document(self, model: ir.Model) -> dict[str, Any]:
        """The encodings by the tensors of that model."""
        found: dict[str, Encoding] = {}
        for key, encoding in self.by_site.items():
            found[_tensor(model, key)] = encoding
        listed = [{"name": name, **encoding} for name, encoding in sorted(found.items())]
        return {"version": VERSION, "encodings": listed}


def encodings_of(recipe: Recipe) -> Encodings:
    """The encodings of a recipe, with what AIMET cannot say."""
    plan = recipe.once(qdq_plan)
    edits = dict(plan.placements)
    found = Encodings(plan=plan, refused=list(plan.refused))
    for key, placement in plan.placements.items():
        try:
            encoding, rest = _parted(recipe, key, placement)
        except Inexpressible as why:
            found.refused.append(recipe.refusal(key, why.reason, why.instead))
            continue
        if encoding is not None:
            found.by_site[key] = encoding
        edits.pop(key)
        if rest is not None:
            edits[key] = rest
    found.plan = replace(plan, placements=edits)
    found.refused += _read_otherwise(recipe, found)
    if not found.refused:
        found.refused += unwritable(recipe, found.plan)
    return found


def _parted(
    recipe: Recipe, key: str, placement: Placement
) -> tuple[Encoding | None, Placement | None]:
    """The encoding of a site, and what stays an edit of the model."""
    match placement:
        case Codes():
            constant = recipe.constant(key)
            quantize = recipe.bound[key]
            assert constant is not None, "codes are of constants"
            values = quantize(constant.float()).numpy()
            return _weight(placement), StoredValues(values=values, type=ir.DataType.FLOAT)
        case Pair():
            return _activation(placement), None
        case Sum(then=Pair() as then):
            return _activation(then), replace(placement, then=None)
        case _:
            return None, placement


def _weight(codes: Codes) -> Encoding:
    scale = np.asarray(codes.scale, np.float32)
    if codes.level is not None:
        scale = scale * codes.level
    found = {"output_dtype": _type(codes.codes.dtype), "y_scale": scale.tolist()}
    if codes.zero_point is not None and codes.zero_point.astype(np.float32).any():
        found["y_zero_point"] = codes.zero_point.astype(np.int64).tolist()
    if scale.ndim:
        found["axis"] = codes.axis
    if codes.block:
        found["block_size"] = codes.block
    return found


def _activation(pair: Pair) -> Encoding:
    found = {
        "output_dtype": _type(pair.zero_point.dtype),
        "y_scale": float(np.float32(pair.scale)),
    }
    if pair.zero_point.astype(np.float32).any():
        found["y_zero_point"] = int(pair.zero_point)
    return found


def _type(dtype: np.dtype[Any]) -> str:
    if "int" in dtype.name:
        return str(dtype.name)
    if dtype.name not in FLOATS:
        raise Inexpressible(f"AIMET's encodings know no {dtype.name}", instead=KNOWN)
    return FLOATS[dtype.name]


def _read_otherwise(recipe: Recipe, found: Encodings) -> Iterator[Refusal]:
    """Activations that are rounded for some of their readers only."""
    graph = recipe.graph
    readers: dict[str, list[str]] = {}
    for node in graph.nodes:
        for index, value in enumerate(node.inputs):
            readers.setdefault(value, []).append(f"{node.name}/in{index}")
    for key, encoding in found.by_site.items():
        name, _, operand = key.rpartition("/")
        node = graph.by_name[name]
        if not operand.startswith("in") or recipe.constant(key) is not None:
            continue
        value = node.inputs[int(operand[2:])]
        others = [one for one in readers[value] if found.by_site.get(one) != encoding]
        others += ["the graph's output"] if value in graph.outputs else []
        if others:
            yield recipe.refusal(
                key,
                f"AIMET quantizes a tensor for all that read it, and {value} is read "
                f"otherwise by {', '.join(others[:3])}",
                "one static format for all readers is written, or none",
            )


def _tensor(model: ir.Model, key: str) -> str:
    """The name of the tensor at a site of the edited model."""
    name, _, operand = key.rpartition("/")
    node = next(one for one in model.graph.all_nodes() if one.name == name)
    if operand.startswith("out"):
        return str(node.outputs[int(operand[3:])].name).removesuffix("_before")
    value = node.inputs[int(operand[2:])]
    assert value is not None, "a site is an operand"
    producer = value.producer()
    if producer is not None and producer.op_type == "Cast" and _is_stored(producer):
        value = producer.inputs[0]
        assert value is not None, "a cast reads something"
    return str(value.name)


def _is_stored(cast: ir.Node) -> bool:
    source = cast.inputs[0]
    return source is not None and source.const_value is not None
