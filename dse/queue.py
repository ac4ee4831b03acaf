"""The queue in front of one assignment: its load, or the most requests within bounds.

`load` elsewhere reads a file; here it is what requests make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dse.space.constraint import Constraint
from hwmodels.runtimes.runtime import ASSUMED, Runtime
from hwmodels.tables.load import Load, load_of, sustained
from hwmodels.tables.queueing import Engine, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An assignment under a traffic."""

    load: Load | None
    """None where nothing is served."""
    sustained_rate: float | None
    """The most requests a second at which the bounds hold; None without bounds."""
    remarks: tuple[str, ...]
    """Assumptions that it rests on, or the reason why there is none."""


NO_LOAD = Loaded(load=None, sustained_rate=None, remarks=())


def loaded(
    engine: Engine | None,
    traffic: Traffic,
    bounds: Sequence[Constraint],
    runtime: Runtime,
    where: str,
) -> Loaded:
    """The load of the traffic, or with bounds that of the most requests a second within them.

    Args:
        engine: the assignment; None where steps of several requests have no price.
        traffic: the requests that come.
        bounds: upper bounds on columns of `Load`.
        runtime: what batches the requests.
        where: the assignment as remarks name it.
    """
    if engine is None:
        return Loaded(
            load=None,
            sustained_rate=None,
            remarks=(
                "no load: steps of more requests have no price, as no size of the model counts "
                "requests",
            ),
        )
    if engine.most < 1:
        none = f"{where}: no load, as not one request fits beside the weights"
        return Loaded(load=None, sustained_rate=None, remarks=(none,))
    if not bounds:
        found, rate = load_of(engine, traffic), None
    else:
        rate, found = sustained(
            engine, traffic, lambda load: all(bound.holds(asdict(load)) for bound in bounds)
        )
    return Loaded(load=found, sustained_rate=rate, remarks=_assumed_batching(runtime))


def _assumed_batching(runtime: Runtime) -> tuple[str, ...]:
    """Says that nothing is known of the way in which a runtime batches requests."""
    batching = runtime.batching
    if batching.source != ASSUMED:
        return ()
    return (
        f"{runtime.name}: no source says how it batches requests; {batching.tokens} tokens an "
        "iteration, prompts cut and beside those who decode, are assumed (`batching` in its file)",
    )
