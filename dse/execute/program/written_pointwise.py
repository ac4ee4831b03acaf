"""RMS norms and activations that are written out."""

from __future__ import annotations

import math
from functools import partial

from torch.nn import functional

from dse.execute.operators.fused import fused_rms_norm
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.wiring import Fusion, Wiring, chain


def rms_norm_chain(wiring: Wiring, mean: Step) -> Fusion | None:
    """X times the reciprocal root of its mean square, then times a gain."""
    square = wiring.written_by(mean.inputs[0], "Pow", "Mul")
    if square is None or not _is_square(wiring, square) or not _reduces_last(wiring, mean):
        return None
    x = square.inputs[0]
    total = wiring.reader(mean.outputs[0], "Add")
    epsilon = wiring.number(total[0].inputs[1 - total[1]]) if total else None
    root = wiring.reader(total[0].outputs[0], "Sqrt") if total else None
    if total is None or epsilon is None or root is None:
        return None
    divided = wiring.reader(root[0].outputs[0], "Reciprocal", "Div")
    if divided is None:
        return None
    members = [square, mean, total[0], root[0], divided[0]]
    if divided[0].what == "Reciprocal":
        scaled = wiring.reader(divided[0].outputs[0], "Mul")
        if scaled is None or x not in scaled[0].inputs:
            return None
        members.append(scaled[0])
    elif divided[1] != 1 or divided[0].inputs[0] != x:
        return None
    gain = wiring.reader(members[-1].outputs[0], "Mul")
    weight = gain[0].inputs[1 - gain[1]] if gain else ABSENT
    call = partial(fused_rms_norm, epsilon=epsilon)
    if gain is not None and wiring.vector(weight):
        whole = chain(wiring, (*members, gain[0]), (x, weight), call, what="rms_norm")
        if whole is not None:
            return whole
    return chain(wiring, members, (x,), call, what="rms_norm")


def _is_square(wiring: Wiring, step: Step) -> bool:
    if step.what == "Mul":
        return step.inputs[0] == step.inputs[1]
    return wiring.number(step.inputs[1]) == 2


def _reduces_last(wiring: Wiring, mean: Step) -> bool:
    keywords = getattr(mean.call, "keywords", {})
    axes = keywords.get("axes")
    if axes is None and len(mean.inputs) > 1:
        axes = (wiring.number(mean.inputs[1]),)
    return tuple(axes or ()) == (-1,) and keywords.get("keepdims", 1) == 1


def silu_chain(wiring: Wiring, sigmoid: Step) -> Fusion | None:
    """X times sigmoid(x)."""
    product = wiring.reader(sigmoid.outputs[0], "Mul")
    if product is None or product[0].inputs[1 - product[1]] != sigmoid.inputs[0]:
        return None
    return chain(wiring, (sigmoid, product[0]), sigmoid.inputs, functional.silu, what="silu")


def gelu_chain(wiring: Wiring, erf: Step) -> Fusion | None:
    """X (1 + erf(x / sqrt 2)) / 2, the products in any order."""
    scaled = wiring.written_by(erf.inputs[0], "Div", "Mul")
    factor = wiring.number(scaled.inputs[1]) if scaled else None
    if scaled is None or factor is None:
        return None
    inverse = 1 / factor if scaled.what == "Div" else factor
    shifted = wiring.reader(erf.outputs[0], "Add")
    if abs(inverse - math.sqrt(0.5)) > 1e-6 or shifted is None:
        return None
    x = scaled.inputs[0]
    if wiring.number(shifted[0].inputs[1 - shifted[1]]) != 1:
        return None
    members, left = [scaled, erf, shifted[0]], {"x", "half"}
    while left:
        product = wiring.reader(members[-1].outputs[0], "Mul")
        if product is None:
            return None
        other = product[0].inputs[1 - product[1]]
        kind = "x" if other == x else "half" if wiring.number(other) == 0.5 else ""
        half = wiring.written_by(other, "Mul")
        if not kind and half is not None and x in half.inputs and _halves(wiring, half):
            members, kind = [half, *members], "both"
        if not (left == {"x", "half"} if kind == "both" else kind in left):
            return None
        left = set() if kind == "both" else left - {kind}
        members.append(product[0])
    return chain(wiring, members, (x,), functional.gelu, what="gelu")


def _halves(wiring: Wiring, step: Step) -> bool:
    return any(wiring.number(slot) == 0.5 for slot in step.inputs)
