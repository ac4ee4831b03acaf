"""Hardware that was searched, in words: what a point is built of, and what one step more buys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.report.quantities.axis import WORDS
from dse.report.quantities.unit import DASH, digits, si, unit_of
from dse.run.entries import MeasuredPoint, PriceChange, ShadowPrice
from dse.run.manifest import ParameterEntry
from dse.run.search_run import SearchRun

MINUS = "−"
SAME = "the same"
NONE_BELOW = 0.05
"""Per cent below which a change reads as none."""


def parameters(run: SearchRun) -> tuple[ParameterEntry, ...]:
    """The parameters that vary; none where hardware is as the files say."""
    return run.manifest.hardware.parameters if run.manifest.hardware else ()


def labels(run: SearchRun) -> dict[str, str]:
    """Parameter -> short name that tells it from the others: `rows`, `scratchpad capacity`."""
    names = [one.name for one in parameters(run)]
    found = {}
    for name in names:
        parts = [part for part in name.split(".") if part not in ("size", "value")]
        length = next(
            (n for n in (1, 2, 3) if _alone(parts[-n:], name, names, n)),
            len(parts),
        )
        tail = parts[-max(length, 2) :] if parts[0] == "memories" else parts[-length:]
        found[name] = " ".join(tail).replace("_", " ")
    return found


def effort_text(run: SearchRun) -> str:
    """`40 assignments`, or `32 assignments on 108 chips`: what was measured, and where priced."""
    if run.hardware is None:
        return f"{len(run.points)} assignments"
    chips = "1 chip" if run.hardware.priced == 1 else f"{run.hardware.priced} chips"
    return f"{run.hardware.measured} assignments on {chips}"


def _alone(tail: list[str], name: str, names: list[str], length: int) -> bool:
    others = ([p for p in other.split(".") if p not in ("size", "value")] for other in names
              if other != name)  # fmt: skip
    return all(other[-length:] != tail for other in others)


def built_text(run: SearchRun, hardware: Mapping[str, str]) -> str:
    """`rows 32, columns 16 and scratchpad capacity 256 KiB`."""
    short = labels(run)
    parts = [f"{short.get(name, name)} {value}" for name, value in hardware.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def values_text(point: MeasuredPoint) -> str:
    """The values of a point alone, in the order of the parameters: `32 · 16 · 256 KiB`."""
    return " · ".join(point.hardware.values())


def step_text(run: SearchRun, price: ShadowPrice) -> str:
    """`+128 KiB scratchpad capacity`, or `dataflow output instead of weight`."""
    name = labels(run).get(price.parameter, price.parameter)
    if price.amount is None:
        return f"{name} {price.after} instead of {price.before}"
    sign = "+" if price.amount > 0 else MINUS
    unit = f" {price.unit}" if price.unit else ""
    return f"{sign}{digits_short(abs(price.amount))}{unit} {name}"


def digits_short(value: float) -> str:
    """Up to four significant digits, without trailing zeros."""
    return f"{float(f'{value:.4g}'):g}"


def change_text(change: PriceChange) -> str:
    """`−3.1 % (−4.0 to −2.2) latency`; `no change of latency`."""
    noun, shown = noun_of(change.column), range_text(change)
    return f"no change of {noun}" if shown == SAME else f"{shown} {noun}"


def range_text(change: PriceChange) -> str:
    """`−3.1 % (−4.0 to −2.2)`; the number alone where nothing is in doubt."""
    middle, low, high = (100 * (one - 1) for one in (change.ratio, change.low, change.high))
    if max(abs(middle), abs(low), abs(high)) < NONE_BELOW:
        return SAME
    if high - low < NONE_BELOW:
        return f"{signed(middle)} %"
    return f"{signed(middle)} % ({signed(low)} to {signed(high)})"


def noun_of(column: str) -> str:
    """`latency` of `chip.latency_s`, `loss` of a loss."""
    quantity = column.rpartition(".")[2]
    return "loss" if quantity.endswith("loss") else WORDS.get(quantity, (quantity, ""))[0]


def signed(percent: float) -> str:
    """A number with its sign and as many digits as it is worth."""
    shown = digits(abs(percent), 2) if abs(percent) >= 0.1 else f"{abs(percent):.1f}"
    if float(shown) == 0:
        return "0"
    return f"{'+' if percent > 0 else MINUS}{shown}"


def area_text(price: ShadowPrice) -> str:
    """`+0.4 mm²`; empty where areas are not known, or the same."""
    if price.area_mm2 is None:
        return ""
    if abs(price.area_mm2) < 1e-9:
        return "no area"
    sign = "+" if price.area_mm2 > 0 else MINUS
    return f"{sign}{digits(abs(price.area_mm2), 2)} mm²"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """The gains of steps of the hardware, a row a step."""

    headings: tuple[str, ...]
    """Of the columns behind the step."""
    rows: tuple[tuple[str, ...], ...]


def price_table(run: SearchRun) -> PriceTable:
    """The shadow prices of a run: costs at equal loss, the loss at equal cost, area."""
    prices = run.hardware.shadow_prices if run.hardware else ()
    pairs = dict.fromkeys((one.column, one.at) for price in prices for one in price.changes)
    rows = []
    for price in prices:
        known = {(one.column, one.at): one for one in price.changes}
        cells = [range_text(known[pair]) if pair in known else DASH for pair in pairs]
        rows.append((step_text(run, price), *cells, area_text(price) or DASH))
    headings = (f"{noun_of(column)} at equal {noun_of(at)}" for column, at in pairs)
    return PriceTable(headings=(*headings, "area"), rows=tuple(rows))


def price_text(run: SearchRun, price: ShadowPrice) -> str:
    """One line: the step, what it changes at equal loss and at equal cost, its area."""
    at_loss = [change_text(one) for one in price.changes if "loss" in one.at]
    at_cost = [
        f"{change_text(one)} at equal {noun_of(one.at)}"
        for one in price.changes
        if "loss" not in one.at
    ]
    parts = [f"{', '.join(at_loss)} at equal loss"] if at_loss else []
    parts += [*at_cost, area_text(price)]
    return f"{step_text(run, price)}: {'; '.join(part for part in parts if part)}"


def figures_text(run: SearchRun, point: MeasuredPoint) -> str:
    """Costs of a point in the objectives: `0.53 mm², 0.39 ms, 69 µJ`."""
    columns = sorted(run.cost_objectives, key=lambda name: not name.endswith("area_mm2"))
    values = ((column, point.columns.get(column)) for column in columns)
    return ", ".join(si(value, unit_of(column)) for column, value in values if value is not None)
