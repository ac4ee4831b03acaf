"""Predictions beside measured times, as a screen and a program see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dse.cli.screen import Rows, Screen, Value
from dse.report.quantities.unit import percent

if TYPE_CHECKING:
    from hwmodels.adapt.deviation import Comparison, Errors, Group

SHOWN = ("rows", "of the time", "MAPE", "median error", "bias", "within 10 %", "in interval",
         "of the error")  # fmt: skip
MOST_GROUPS = 12
"""Groups of one label that are shown; JSON has all."""
WORDS = {"launch": "bound by launches", "compute": "bound by computing",
         "memory": "bound by memory", "conversion": "converting",
         "communication": "communicating"}  # fmt: skip


def table_of(comparison: Comparison) -> Rows:
    """Errors of all rows, then by each kind of label."""
    lines: list[tuple[Value, ...]] = [("all", *_cells(comparison.errors()))]
    for kind in comparison.labels:
        groups = list(comparison.by(kind).items())
        if kind == "model" and len(groups) == 1:
            continue
        lines += [(f"{kind} {name}", *_cells(one)) for (name,), one in groups[:MOST_GROUPS]]
        if len(groups) > MOST_GROUPS:
            left = f"{kind}: {len(groups) - MOST_GROUPS} more"
            lines.append((left, *("",) * len(SHOWN)))
    return Rows(columns=("group", *SHOWN), rows=tuple(lines))


def record_of(comparison: Comparison) -> dict[str, object]:
    """The same for programs, and every combination of labels."""
    kinds = tuple(comparison.labels)
    every = comparison.by(*kinds)
    return {
        "errors": asdict(comparison.errors()),
        **{
            f"by_{kind}": [{kind: name} | asdict(one) for (name,), one in _of(comparison, kind)]
            for kind in kinds
        },
        "groups": [
            dict(zip(kinds, group, strict=True)) | asdict(one) for group, one in every.items()
        ],
        "biggest_source": sentence_of(comparison),
    }


def sentence_of(comparison: Comparison) -> str:
    """The group with the most absolute error in time, in words."""
    kinds = tuple(comparison.labels)
    group, errors = next(iter(comparison.by(*kinds).items()))
    if not errors.share_of_error:
        return "No error: every prediction is what was measured."
    side = "short" if errors.total < 0 else "long"
    rows = "row" if errors.rows == 1 else "rows"
    return (
        f"The biggest source of error is {_words(kinds, group)}: "
        f"{percent(errors.share_of_error)} of the absolute error in time, in {errors.rows} {rows} "
        f"with {percent(errors.share_of_time)} of the measured time; "
        f"predictions are {100 * abs(errors.total):.0f} % too {side} there."
    )


def say_comparison(screen: Screen, comparison: Comparison) -> None:
    """Print errors by group and the biggest source."""
    screen.table(table_of(comparison))
    screen.result("")
    screen.result(sentence_of(comparison))


def _of(comparison: Comparison, kind: str) -> Sequence[tuple[Group, Errors]]:
    return tuple(comparison.by(kind).items())


def _cells(errors: Errors) -> tuple[Value, ...]:
    return (
        errors.rows,
        percent(errors.share_of_time),
        f"{100 * errors.mape:.1f} %",
        f"{100 * errors.median:.1f} %",
        f"{100 * errors.bias:+.1f} %",
        percent(errors.within_10_percent),
        percent(errors.in_interval),
        percent(errors.share_of_error),
    )


def _words(kinds: Sequence[str], group: Group) -> str:
    """`gemm in bf16, bound by memory, under vllm`."""
    named = dict(zip(kinds, group, strict=True))
    first = named.get("operator") or named.get("model") or ""
    text = f"{first} in {named['format']}, {WORDS.get(named['regime'], named['regime'])}"
    return f"{text}, under {named['runtime']}" if "runtime" in named else text
