"""A scenario's calls as work: sizes bound, split over GPUs, and what a served batch grows to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis
from dse.imports.facts import facts_of
from hwmodels.tables.network import PhaseWork
from hwmodels.tables.serving import Call, call_of
from hwmodels.work.answer import answering
from hwmodels.work.sharding import shard
from hwmodels.work.work import Work

STEP_FACTOR, MOST_STEPPED = 4, 4096
"""Decoding steps are priced with one request, with so many times more, and so on to a number at
which a step is bound by computing, and interpolated between. The scenario's batch has no part in
it: what a full memory serves is the same whatever batch was asked for."""
FULL_TOKENS = 8192
"""Tokens of the largest prefill call that is priced beside one of a single prompt; what serving
runtimes put into one iteration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The two phases of a served language model, and how many tokens come of a prompt."""

    prefill: str
    decode: str
    prompt: Call
    step: Call
    generated: float
    """Tokens of a request: decoding calls a prefill call, by shares, times their requests."""


def phase_work(
    analysis: Analysis,
    dims: Mapping[str, int],
    ways: int,
    *,
    float_bits: int = 16,
    answers: bool = False,
) -> Work:
    """The work of one of `ways` GPUs in one call, whose values between products have such floats.

    `answers` is whether the call serves requests, which ask for the logits of their last position
    alone, as every serving runtime computes them.

    Raises:
        GraphError: sizes that are not bound, or shapes that do not fit.
        WorkError: heads or widths that `ways` does not divide.
    """
    work = lower(analysis, dims, float_bits=float_bits)
    call = call_of(work) if answers else None
    if call is not None:
        work = answering(work, requests=call.requests, tokens=call.tokens)
    notes = (*work.notes, *_of_import(analysis.graph, dims))
    return shard(replace(work, notes=notes), ways)


def _of_import(graph: Graph, dims: Mapping[str, int]) -> Iterator[str]:
    """Remarks on what of an imported model is not priced, and on calls too long for it."""
    facts = facts_of(graph)
    if facts is not None and facts.unread:
        yield f"not priced, as {facts.output} does not depend on them: {facts.unread}"
    length = dims.get("sequence", 0) + dims.get("past", 0)
    if facts is not None and facts.context is not None and length > facts.context:
        yield (
            f"{length} positions are priced, but the model has a context of {facts.context} "
            "(max_position_embeddings in config.json): it answers nothing sensible beyond"
        )


def remarks_of(phases: Sequence[PhaseWork]) -> tuple[str, ...]:
    """Assumptions about a network in any phase, and parts of it that are not priced."""
    return tuple(dict.fromkeys(note for phase in phases for note in phase.work.notes))


def exchange_of(phases: Sequence[PhaseWork]) -> Exchange | None:
    """The prefill and the decoding phase, by the tokens of a request; None unless one each."""
    calls = [(phase, call_of(phase.work)) for phase in phases]
    prompts = [(phase, call) for phase, call in calls if call and call.tokens > 1]
    steps = [(phase, call) for phase, call in calls if call and call.tokens == 1]
    if len(prompts) != 1 or len(steps) != 1:
        return None
    (prefill, prompt), (decode, step) = prompts[0], steps[0]
    return Exchange(
        prefill=prefill.name,
        decode=decode.name,
        prompt=prompt,
        step=step,
        generated=decode.share * step.requests / (prefill.share * prompt.requests),
    )


def growing_steps(
    analysis: Analysis, dims: Mapping[str, int], ways: int, *, float_bits: int = 16
) -> tuple[PhaseWork, ...]:
    """Decoding steps of more and more requests, named by their number; none without a batch.

    Up to `MOST_STEPPED`, or past the scenario's batch where that is larger.
    """
    name = batch_name(analysis.graph, dims)
    if name is None:
        return ()
    sizes = [1]
    while sizes[-1] < max(MOST_STEPPED, dims[name]):
        sizes.append(sizes[-1] * STEP_FACTOR)
    found: dict[int, PhaseWork] = {}
    for size in sizes:
        work = phase_work(analysis, {**dims, name: size}, ways, float_bits=float_bits)
        call = call_of(work)
        if call is not None:
            found[call.requests] = PhaseWork(name=str(call.requests), share=1.0, work=work)
    return tuple(found.values()) if len(found) == len(sizes) else ()


def fuller_prompts(
    analysis: Analysis, dims: Mapping[str, int], prompt: Call, ways: int, *, float_bits: int = 16
) -> tuple[PhaseWork, ...]:
    """Prefill calls of several times `prompt`, by their tokens; none where it fills a call."""
    name = batch_name(analysis.graph, dims)
    if name is None:
        return ()
    tokens = prompt.tokens * prompt.requests
    most = FULL_TOKENS // tokens
    found = []
    for count in sorted({round(most**0.5), most} - {0, 1}):
        work = phase_work(
            analysis,
            {**dims, name: dims[name] * count},
            ways,
            float_bits=float_bits,
            answers=True,
        )
        found.append(PhaseWork(name=str(tokens * count), share=1.0, work=work))
    return tuple(found)


def batch_name(graph: Graph, dims: Mapping[str, int]) -> str | None:
    """The dimension that counts requests: called batch, or the first axis of the first input.

    Another axis, where recurrences take it for samples.
    """
    named = [name for name in dims if "batch" in name.lower()]
    if named:
        return named[0]
    value = next(iter(graph.samples or graph.inputs), "")
    kind = graph.types.get(value)
    size = kind.shape[graph.samples.get(value, 0)] if kind is not None and kind.shape else None
    return size if isinstance(size, str) and size in dims else None
