"""Values that are kept, of all that could be, by the memory that there is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dse.errors import GraphError
from dse.execute.memory import GIGA, Caches, Need, available_bytes, held_bytes
from dse.graph.ir.graph import Graph

USABLE = 0.9
"""Of an accelerator's free memory: the rest is for libraries' work spaces and for gaps."""
SHARE = 2
"""References and waiting batches take at most one part in so many of what is left: the rest is for
values that a changed assignment starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory as it is dealt out. Less of it costs time, no bits."""

    caches: Caches
    """The most that they take."""
    in_step: int = 1
    """Batches that go through the layers together, so that a weight is quantized once for all."""
    keeps_references: bool = True
    """Whether distributions of full precision stay."""
    streams: bool = False
    """Whether weights stay on the host and are copied to the accelerator when they are read."""


def room_for(need: Need, graph: Graph, *, limit_bytes: int | None = None) -> Room:
    """The memory that remains beside what must fit, dealt out.

    Args:
        need: of the graph.
        graph: with weights.
        limit_bytes: that this process may take in all; None: what the machine has.

    Raises:
        GraphError: what must fit does not; the message has both numbers.
    """
    free = available_bytes()
    if limit_bytes is not None:
        free = min(free, max(0, limit_bytes - held_bytes()))
    if need.total_bytes > free:
        given = f", {free / GIGA:.2g} GB of them within --memory" if limit_bytes else ""
        raise GraphError(
            f"{graph.path or graph.name}: {need}{given}; use a smaller batch or sequence, or save "
            "the model with external data, which is read layer by layer"
        )
    return _dealt(need, free - need.total_bytes)


def room_on_device(
    need: Need, graph: Graph, *, free_bytes: int, limit_bytes: int | None = None
) -> Room:
    """The memory of an accelerator, dealt out: all weights stay there, or none does.

    Args:
        need: of the graph; its files are of the host.
        graph: with weights.
        free_bytes: of the accelerator.
        limit_bytes: that may be taken of them; None: all.

    Raises:
        GraphError: one layer does not fit; the message has both numbers.
    """
    free = int(USABLE * free_bytes)
    if limit_bytes is not None:
        free = min(free, limit_bytes)
    working = need.learned_bytes + need.layer_bytes + need.activation_bytes
    if need.stored_bytes + working <= free:
        return _dealt(need, free - need.stored_bytes - working)
    working += need.layer_bytes  # the next one is copied while this one is read
    if working > free:
        raise GraphError(
            f"{graph.path or graph.name}: one layer and its activations take about "
            f"{working / GIGA:.2g} GB, the accelerator has {free / GIGA:.2g} GB"
            f"{' within --memory' if limit_bytes is not None else ''}; use a smaller batch or "
            "sequence"
        )
    return replace(_dealt(need, free - working), streams=True)


def _dealt(need: Need, left: int) -> Room:
    """The memory that is left beside what must fit."""
    keeps_references = need.reference_bytes <= left // SHARE
    # Distributions that are made again stand beside those that are compared with them.
    left -= need.reference_bytes if keeps_references else need.output_bytes
    if not keeps_references:
        left -= need.splits * need.batches * need.waiting_bytes
    caches, in_step = need.caches, 1
    if need.copies_bytes > need.caches.within(left).weight_bytes and need.waiting_bytes:
        others = max(0, left // SHARE - need.layer_bytes) // need.waiting_bytes
        in_step = min(need.batches, 1 + others)
        left -= (in_step - 1) * need.waiting_bytes
    if in_step > 1:
        # No copy of a weight is read again before all others were.
        weight_bytes = min(caches.weight_bytes, 2 * need.layer_bytes)
        left -= weight_bytes
        traces = Caches(trace_bytes=caches.trace_bytes).within(left)
        caches = Caches(weight_bytes=weight_bytes, trace_bytes=traces.trace_bytes)
    return Room(
        caches=caches.within(max(0, left)) if in_step == 1 else caches,
        in_step=in_step,
        keeps_references=keeps_references,
    )
