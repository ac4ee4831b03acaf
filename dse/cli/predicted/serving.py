"""Serving in tables: alone, beside other requests, and how many of them keep a bound."""

from __future__ import annotations

from dataclasses import asdict
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.screen import Rows, Screen, is_given, positive
from dse.report.quantities.unit import speedup_text

if TYPE_CHECKING:
    from dse.predict import Prediction
    from dse.space.constraint import Constraint
    from hwmodels.tables.speedup import Speedup

Prompt = Annotated[
    int | None,
    typer.Option(min=2, metavar="TOKENS", help="Serving numbers for prompts of this length."),
]
Generate = Annotated[int, typer.Option(min=2, metavar="TOKENS", help="Tokens of an answer.")]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Requests that decode together.")]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="PER_S",
        callback=positive,
        help="Requests a second that arrive at random, instead of --batch clients that wait.",
    ),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'COLUMN<=N'",
        help="With --prompt: the most requests a second at which this holds, e.g. "
        "'ttft_p99_s<=0.5'. Repeat for several.",
    ),
]

SHOWN_OF_SERVING = ("ttft_s", "tpot_s", "tokens_per_s_per_gpu", "max_batch", "gpus",
                    "cost_per_mtok", "full_tokens_per_s_per_gpu",
                    "full_cost_per_mtok")  # fmt: skip
SHOWN_OF_LOAD = ("rate", "in_flight", "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p99_s",
                 "most_rate")  # fmt: skip
GAIN = "requests"
"""Header of how many times as many requests a second there are."""
OVER_THE_FIRST = (
    "; requests: how many times as many a second as of the device's first format, within the "
    "bounds where there are any, else at most"
)
GROWING = (
    "the queue still grew when the last of the simulated requests came: its times are longer the "
    "longer it lasts"
)
OF_REQUESTS = ("generate", "batch", "price", "memory_utilisation")
"""Options that say nothing of a single call."""


def load_bounds(
    given: list[str] | None, rate: float | None, *, served: bool, beside: bool
) -> tuple[Constraint, ...]:
    """The bounds on what requests find.

    Args:
        given: as the user wrote them.
        rate: requests a second, if they are given.
        served: whether there are requests.
        beside: whether a table is asked for that has no place for a load.

    Raises:
        typer.BadParameter: nothing is served, a rate beside bounds, another table.
        SpaceError: as `dse.queue.load_bounds`.
    """
    from dse.queue import load_bounds as bounds_of  # noqa: PLC0415

    if not served and (given or rate is not None):
        raise typer.BadParameter(
            "--rate and --constraint are about requests that are served: add --prompt TOKENS"
        )
    if beside and (given or rate is not None):
        raise typer.BadParameter(
            "--rate and --constraint add a table of their own; leave out --regions, --sensitivity "
            "and --sweep (--set goes with them)"
        )
    if given and rate is not None:
        raise typer.BadParameter(
            "--constraint looks for the most requests a second, which --rate gives; leave one out"
        )
    return bounds_of(given or (), origin="--constraint")


def refuse_without_requests(context: typer.Context, prompt: int | None) -> None:
    """Raises `BadParameter` for options of requests that are given where there are none."""
    given = [name for name in OF_REQUESTS if is_given(context, name)]
    if prompt is None and given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(
            f"{flags}: about requests that are served: add --prompt TOKENS; sizes of one call are "
            "--dim NAME=N"
        )


def say_serving(
    screen: Screen, found: tuple[Prediction, ...], gains: tuple[Speedup | None, ...]
) -> None:
    """Prints serving numbers, and those under load.

    Args:
        screen: where.
        found: the predictions.
        gains: how many times the requests of its device's first each answers (`rate_gains`).
    """
    screen.table(_servings(found))
    if any(one.load is not None for one in found):
        screen.table(_loads(found, gains))
        screen.remark(
            "the last table is a simulation of iterations: rates in requests a second, times "
            "from sending a request, lengths within 20 % of those asked for"
            + (OVER_THE_FIRST if any(one is not None for one in gains) else "")
        )
    for one in found:
        for remark in _of_load(one):
            screen.remark(f"{one.format} on {one.device}: {remark}")


def not_fitting(batch: int, fitting: int) -> str:
    """The words for requests of which not all fit in memory."""
    if batch == 1:
        return "1 request does not fit beside the weights"
    rest = {0: "none does", 1: "1 does"}.get(fitting, f"{fitting} do")
    return f"{batch} requests do not fit, {rest}"


def load_record(one: Prediction, gain: Speedup | None) -> dict[str, object]:
    """The load of a prediction, for programs: what has no end is null there.

    Args:
        one: the prediction.
        gain: in requests a second, over its device's first.
    """
    load = None if one.load is None else asdict(one.load)
    return {
        "load": load and {key: value if isfinite(value) else None for key, value in load.items()},
        "sustained_rate": one.sustained_rate,
        "rate_gain": None if gain is None else gain.factor,
        "rate_gain_low": None if gain is None else gain.low,
        "rate_gain_high": None if gain is None else gain.high,
    }


def _of_load(one: Prediction) -> tuple[str, ...]:
    if one.load is None:
        return ()
    growing = () if one.load.settled else (GROWING,)
    if one.sustained_rate is not None and not one.sustained_rate:
        return ("one request at a time is beyond the bounds already; its load is shown",)
    if one.sustained_rate is not None:
        return (f"{one.sustained_rate:.3g} requests a second at most keep the bounds", *growing)
    if one.load.in_flight == inf:
        return (
            f"more requests arrive than the {one.load.most_rate:.3g} a second that are answered "
            "at most, so that the queue grows without end",
        )
    return growing


def _servings(found: tuple[Prediction, ...]) -> Rows:
    # A price is known of some devices only.
    columns = [name for name in SHOWN_OF_SERVING if any(name in one.serving for one in found)]
    return Rows(
        columns=("device", "format", *columns),
        rows=tuple((one.device, one.format, *map(one.serving.get, columns)) for one in found),
    )


def _loads(found: tuple[Prediction, ...], gains: tuple[Speedup | None, ...]) -> Rows:
    """One row a prediction with a load; with several also how many times the requests."""
    compared = any(one is not None for one in gains)
    ratios = [("" if one is None else speedup_text(one),) if compared else () for one in gains]
    return Rows(
        columns=("device", "format", *SHOWN_OF_LOAD, *((GAIN,) if compared else ())),
        rows=tuple(
            (one.device, one.format, *(getattr(one.load, name) for name in SHOWN_OF_LOAD), *ratio)
            for one, ratio in zip(found, ratios, strict=True)
            if one.load is not None
        ),
    )
