"""`dse predict --sensitivity`: what each figure of a device's file does to a prediction."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from dse.cli.screen import Rows, Screen
from dse.report.quantities.unit import si

if TYPE_CHECKING:
    from dse.elasticity import Elasticity, Sensitivities

LEAST = 0.0005
"""Elasticities below this are shown as none."""
UNSEEN = ("assumed", "scaled")
"""Kinds of figures that no source states."""


def say_sensitivities(screen: Screen, found: Sensitivities, *, as_json: bool) -> None:
    """Print the figures, those that move the latency most first."""
    if as_json:
        screen.json([_record(one) for one in found.figures])
        return
    moving = [one for one in found.figures if max(abs(one.latency), abs(one.energy)) >= LEAST]
    screen.result(
        f"{found.format} on {found.device} under {found.runtime}: {si(found.latency_s, 's')}\n"
    )
    screen.table(
        Rows(
            columns=("figure", "value", "kind", "a tenth lower", "a tenth higher",
                     "latency elasticity", "energy elasticity"),
            rows=tuple(
                (
                    one.figure,
                    _value(one),
                    one.value.kind,
                    f"{100 * (one.latency_lower_s / found.latency_s - 1):+.1f} %",
                    f"{100 * (one.latency_higher_s / found.latency_s - 1):+.1f} %",
                    round(one.latency, 3),
                    round(one.energy, 3),
                )
                for one in moving
            ),
        )
    )  # fmt: skip
    screen.result("")
    screen.result(_sentence(found))
    if still := [one.figure for one in found.figures if one not in moving]:
        screen.remark(f"no effect here: {', '.join(still)}")


def _value(one: Elasticity) -> str:
    from hwmodels.devices.quantity import UNITS  # noqa: PLC0415

    unit = one.value.unit
    return f"{one.value.value / UNITS[unit][1]:.4g}{'' if unit == 'count' else f' {unit}'}"


def _sentence(found: Sensitivities) -> str:
    """The figure that the latency hangs on most, and the one that nobody has stated."""
    first = found.figures[0]
    text = (
        f"The latency follows {first.figure} most: 1 % more is {first.latency:+.2f} % "
        f"({first.value.kind})."
    )
    unseen = [one for one in found.figures if one.value.kind in UNSEEN]
    if not unseen:
        return f"{text} No figure is assumed or scaled from another device."
    return (
        f"{text} Of the {len(unseen)} figures that are assumed or scaled from another device, "
        f"{unseen[0].figure} matters most: {unseen[0].latency:+.2f} %."
    )


def _record(one: Elasticity) -> dict[str, object]:
    return asdict(one) | {
        "value": one.value.value,
        "unit": one.value.unit,
        "kind": one.value.kind,
        "source": one.value.source,
    }
