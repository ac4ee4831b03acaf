"""Norms that are written out, as one kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from dse.execute.operators.fused import fused_layer_norm, fused_rms_norm
from dse.execute.operators.step import Step
from dse.execute.program.wiring import Fusion, Wiring, chain, reduces_last
from dse.graph.patterns.norm import Norm

ROOT = -0.5
"""The exponent of a reciprocal square root."""


@dataclass(slots=True, kw_only=True)
class _Body:
    """The steps from the mean of squares to x times the reciprocal root of it."""

    wiring: Wiring
    centred: int
    """The slot that is squared."""
    members: list[Step] = field(default_factory=list)
    epsilon: float = 0.0

    def grown(self) -> bool:
        """Steps from the mean on to the scaled x; False where the chain is another one."""
        return self._shifted() and self._divided()

    def _shifted(self) -> bool:
        found = self.wiring.reader(self.members[-1].outputs[0], "Add")
        epsilon = self.wiring.number(found[0].inputs[1 - found[1]]) if found else None
        if found is None or epsilon is None:
            return False
        self.members.append(found[0])
        self.epsilon = epsilon
        return True

    def _divided(self) -> bool:
        root = self.wiring.reader(self.members[-1].outputs[0], "Sqrt", "Pow")
        if root is None:
            return False
        self.members.append(root[0])
        if root[0].what == "Pow":
            return self.wiring.number(root[0].inputs[1]) == ROOT and self._scaled()
        inverse = self.wiring.reader(root[0].outputs[0], "Reciprocal", "Div")
        if inverse is None:
            return False
        self.members.append(inverse[0])
        if inverse[0].what == "Reciprocal":
            return self._scaled()
        over, under = inverse[0].inputs
        if under != root[0].outputs[0]:
            return False
        return over == self.centred or (self.wiring.number(over) == 1 and self._scaled())

    def _scaled(self) -> bool:
        product = self.wiring.reader(self.members[-1].outputs[0], "Mul")
        if product is None or self.centred not in product[0].inputs:
            return False
        self.members.append(product[0])
        return True


def norm_chain(wiring: Wiring, found: Norm) -> Fusion | None:
    """One kernel for a norm, if it is over the last axis and has no casts inside."""
    steps = [wiring.by_name[name] for name in found.nodes if name in wiring.by_name]
    means = [step for step in steps if step.what == "ReduceMean"]
    if not means or not reduces_last(wiring, means[-1]):
        return None
    square = wiring.written_by(means[-1].inputs[0], "Pow", "Mul")
    if square is None or not _is_square(wiring, square):
        return None
    body = _Body(wiring=wiring, centred=square.inputs[0], members=[square, means[-1]])
    if not body.grown():
        return None
    x = body.centred
    if found.kind == "layernorm":
        subtract = wiring.written_by(x, "Sub")
        if subtract is None or not _centres(wiring, subtract, means[0]):
            return None
        x = subtract.inputs[0]
        body.members = [means[0], subtract, *body.members]
    return _with_gain(wiring, body, x, found.kind)


def _is_square(wiring: Wiring, step: Step) -> bool:
    if step.what == "Mul":
        return step.inputs[0] == step.inputs[1]
    return wiring.number(step.inputs[1]) == 2


def _centres(wiring: Wiring, subtract: Step, mean: Step) -> bool:
    same = mean.inputs[0] == subtract.inputs[0] and mean.outputs[0] == subtract.inputs[1]
    return same and reduces_last(wiring, mean)


def _with_gain(wiring: Wiring, body: _Body, x: int, kind: str) -> Fusion | None:
    """The chain with as many learned constants behind it as the kernel takes."""
    kernel: Callable[..., Tensor] = fused_rms_norm if kind == "rmsnorm" else fused_layer_norm
    call = partial(kernel, epsilon=body.epsilon)
    what = "rms_norm" if kind == "rmsnorm" else "layer_norm"
    members, inputs = list(body.members), [x]
    tried = [(tuple(members), tuple(inputs))]
    for operator in ("Mul",) if kind == "rmsnorm" else ("Mul", "Add"):
        reader = wiring.reader(members[-1].outputs[0], operator)
        constant = reader[0].inputs[1 - reader[1]] if reader else None
        if reader is None or constant is None or not wiring.vector(constant):
            break
        members.append(reader[0])
        inputs.append(constant)
        tried.append((tuple(members), tuple(inputs)))
    for steps, slots in reversed(tried):
        fusion = chain(wiring, steps, slots, call, what=what)
        if fusion is not None:
            return fusion
    return None
