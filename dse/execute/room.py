"""Values that are kept, of all that could be, by the memory that there is."""

from __future__ import annotations

from dataclasses import dataclass

from dse.errors import GraphError
from dse.execute.memory import GIGA, Caches, Need, available_bytes, held_bytes
from dse.graph.ir.graph import Graph

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
    left = free - need.total_bytes
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
