"""Chains of steps that one kernel can replace, as long as no quantizer stands in its way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from dse.errors import GraphError
from dse.execute.operators.step import Quantize, Step
from dse.execute.program.block import Block
from dse.execute.program.hooks import Hook
from dse.execute.program.wiring import Fusion, Wiring
from dse.execute.program.written_activation import activation_chain
from dse.execute.program.written_attention import attention_chain
from dse.execute.program.written_norm import norm_chain
from dse.graph.patterns.analysis import Analysis


def fusions(block: Block, analysis: Analysis) -> tuple[Fusion, ...]:
    """The graph's findings that one kernel computes, none with a step of another.

    None for a graph whose ranks are not known: nothing is found in it.
    """
    wiring = Wiring(block.steps, block.host_constants, frozenset(block.outputs), block.slots)
    found: list[Fusion] = []
    taken: set[int] = set()
    try:
        for fusion in _candidates(wiring, analysis):
            if fusion is not None and taken.isdisjoint(fusion.members):
                found.append(fusion)
                taken |= fusion.members
    except GraphError:
        return ()
    return tuple(found)


def _candidates(wiring: Wiring, analysis: Analysis) -> Iterator[Fusion | None]:
    inside = analysis.flat.scopes
    for attention in analysis.attentions:
        if attention.mix.name not in inside:
            yield attention_chain(wiring, analysis.flat.graph, attention)
    for norm in analysis.norms:
        if norm.nodes[-1] not in inside:
            yield norm_chain(wiring, norm)
    for activation in analysis.activations:
        if activation.nodes[-1].name not in inside:
            yield activation_chain(wiring, activation)


def fused(
    steps: tuple[Step, ...], hooks: Mapping[int, Hook], fusions: Sequence[Fusion]
) -> tuple[tuple[Step, ...], Mapping[int, Hook]]:
    """The steps with every chain replaced that can take its quantizers, and the hooks moved along.

    What stands at the operands and at the output of a chain stays there.
    """
    moved = dict(hooks)
    replaced: dict[int, Step | None] = {}
    for fusion in fusions:
        found = _with_hooks(fusion, hooks)
        if found is None:
            continue
        replaced.update(dict.fromkeys(fusion.members))
        replaced[fusion.index], hook = found
        for index in fusion.members:
            moved.pop(index, None)
        if hook != Hook():
            moved[fusion.index] = hook
    kept = (replaced.get(step.index, step) for step in steps)
    return tuple(step for step in kept if step is not None), moved


def _with_hooks(fusion: Fusion, hooks: Mapping[int, Hook]) -> tuple[Step, Hook] | None:
    """The fused step and its hook.

    None where a quantizer stands at a value that it lacks, or a sum is not to be its own.
    """
    inputs: list[tuple[int, Quantize]] = []
    outputs: tuple[tuple[int, Quantize], ...] = ()
    inner: dict[str, Quantize] = {}
    for index in sorted(fusion.members & hooks.keys()):
        for position, quantize in hooks[index].inputs:
            place = (index, position)
            if place in fusion.operands:
                inputs.append((fusion.operands[place], quantize))
            elif place in fusion.inner:
                inner[fusion.inner[place]] = quantize
            else:
                return None
        if hooks[index].total or (hooks[index].outputs and index != fusion.index):
            return None
        outputs = hooks[index].outputs
    step = fusion.step
    if inner:
        step = replace(step, call=partial(step.call, **inner))
    return step, Hook(inputs=tuple(inputs), outputs=outputs)
