"""Do integers or floats give more operations a joule at equal accuracy?

Usage: python -m studies.int_vs_fp.run [--measure]

Reads `results/losses.csv` (`--measure` measures what is missing first, half an hour), prices the
circuits, and writes `results/formats.csv` (a line a format and network), `results/equal.csv` (a
line a family, network and loss) and `results/published.csv` (what others found, beside what is
found here); the README's tables are made of them.

At equal accuracy: along a family the logarithms of loss and energy are joined by straight lines
from width to width; a family without a width on both sides of a loss has no value there.
Intervals are of 90 %, over samples of the report split (drawn again, the same for all formats),
and over the ways of building the circuits (`circuits.WAYS`): from the lowest end to the highest.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.int_vs_fp import losses
from studies.int_vs_fp.circuits import MAIN, WAYS, Way, circuit
from studies.int_vs_fp.formats import DIGITS, Entry, entries

RESULTS = Path(__file__).parent / "results"
LEVELS = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Losses in nats a position."""
DRAWS, SEED = 400, 0
ENDS = (5, 95)
BASE = "FP"
Floats = NDArray[np.float64]
Samples = Mapping[str, Floats]
"""Format -> its loss on each sample."""


def samples_of(model: str) -> Samples:
    """The losses of a network."""
    table = losses.read()
    rows = zip(table.model, table.format, table.losses, strict=True)
    return {
        str(name): np.array([float(one) for one in str(found).split()])
        for of, name, found in rows
        if of == model
    }


def family(name: str) -> list[Entry]:
    """A family's formats with their own sums, narrowest first."""
    own = [one for one in entries() if not one.accumulator]
    found = [one for one in own if one.family == name]
    if name == DIGITS:
        found += [one for one in own if one.family == BASE and one.element.startswith("e2")]
    return sorted(found, key=lambda one: one.bits)


def families() -> list[str]:
    """Those with a width to choose."""
    names = dict.fromkeys(one.family for one in entries())
    return [name for name in names if len(family(name)) > 1]


def cost_at(loss: float, points: Sequence[tuple[float, float]]) -> float:
    """The cost at a loss between (cost, loss) of widths; NaN where no width is on one side."""
    for (less, worse), (more, better) in pairwise(points):
        if worse >= loss >= better and worse > better > 0:
            share = (np.log(worse) - np.log(loss)) / (np.log(worse) - np.log(better))
            return float(np.exp(np.log(less) + share * (np.log(more) - np.log(less))))
    return float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Operations a joule over those of another, with its ends."""

    value: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """For tables."""
        if np.isnan(self.value):
            return "–"
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio_at(
    model: Samples, ours: Sequence[Entry], theirs: Sequence[Entry], loss: float | Entry
) -> Ratio:
    """Operations a joule of one family over another's at a loss, or at the loss of a format."""
    count = len(next(iter(model.values())))
    rng = np.random.default_rng(SEED)
    draws = [np.arange(count), *rng.integers(0, count, (DRAWS, count))]

    def value(way: Way, rows: NDArray[np.int64]) -> float:
        level = model[loss.name][rows].mean() if isinstance(loss, Entry) else loss

        def joules(of: Sequence[Entry]) -> float:
            if isinstance(loss, Entry) and list(of) == [loss]:
                return circuit(loss, way).energy_j
            points = [(circuit(one, way).energy_j, model[one.name][rows].mean()) for one in of]
            return cost_at(float(level), points)

        return joules(theirs) / joules(ours)

    ends: list[float] = []
    for way in WAYS:
        found = np.array([value(way, rows) for rows in draws[1:]])
        kept = found[np.isfinite(found)]
        if len(kept) >= DRAWS / 2:
            ends += [float(end) for end in np.percentile(kept, ENDS)]
    middle = value(MAIN, draws[0])
    if np.isnan(middle) or not ends:
        return Ratio(value=float("nan"), low=float("nan"), high=float("nan"))
    return Ratio(value=middle, low=min(*ends, middle), high=max(*ends, middle))


def area_at(model: Samples, ours: Sequence[Entry], theirs: Sequence[Entry], loss: float) -> float:
    """Operations a square millimetre of one family over another's at a loss."""

    def area(of: Sequence[Entry]) -> float:
        points = [(circuit(one).area_um2, float(model[one.name].mean())) for one in of]
        return cost_at(loss, points)

    return area(theirs) / area(ours)


def formats_table() -> pd.DataFrame:
    """A line a format and network."""
    rows = []
    for model in losses.SAMPLES:
        measured = samples_of(model)
        for entry in entries():
            if entry.name not in measured:
                continue
            own, main = measured[entry.name], circuit(entry)
            rows.append({
                "model": model, "family": entry.family, "format": entry.name, "bits": entry.bits,
                "loss": own.mean(), "stderr": own.std(ddof=1) / np.sqrt(len(own)),
                "mac_fj": main.energy_j * 1e15, "mac_um2": main.area_um2,
                "tops_per_w": main.tops_per_w,
                **{f"tops_per_w, {way.name}": circuit(entry, way).tops_per_w for way in WAYS[1:]},
            })  # fmt: skip
    return pd.DataFrame(rows)


def equal_table() -> pd.DataFrame:
    """A line a network, loss and family: operations a joule over scaled floats'."""
    rows = []
    for model in losses.SAMPLES:
        measured = samples_of(model)
        for level in LEVELS:
            for name in families():
                if name == BASE:
                    continue
                found = ratio_at(measured, family(name), family(BASE), level)
                rows.append({
                    "model": model, "loss": level, "family": name, "ratio": found.value,
                    "ratio_low": found.low, "ratio_high": found.high,
                    "area": area_at(measured, family(name), family(BASE), level),
                })  # fmt: skip
    return pd.DataFrame(rows)


DAC = (("lns16_10", "fp16", 1.8), ("int8@g32/e8m0-floor", "e4m3", 2.2),
       ("int4@g16/uint8+fp32", "e2m1", 1.9))  # fmt: skip
"""Operations a joule of the best designs at equal signal to noise, among 35,000 synthesised ones:
Crafton et al., DAC 2025, doi 10.1109/DAC63849.2025.11132989 (abstract)."""
ORDERS = (
    ("int8@g32/e8m0-rceil", "e4m3@g32/e8m0-rceil", "integer"),
    ("int4@g32/e8m0-rceil", "e2m1@g32/e8m0-rceil", "float"),
    ("int4@g16/e4m3+fp32", "e2m1@g16/e4m3+fp32", "float"),
    ("int4@g16/e4m3+fp32 hadamard(16)", "e2m1@g16/e4m3+fp32 hadamard(16)", "integer"),
    ("int8@g32/e8m0-floor", "e4m3@g32/e8m0-floor", "–"),
    ("int4@g32/e8m0-floor", "e2m1@g32/e8m0-floor", "–"),
)
"""Integer, float of one width with equal scales, who loses less by INT v.s. FP (abstract of arXiv
2510.25602), whose powers of two round up; OCP's rule, which it does not use, beside it."""


def published_table() -> pd.DataFrame:
    """A line a comparison and network."""
    by_name = {one.name: one for one in entries()}
    rows = []
    for model in losses.SAMPLES:
        measured = samples_of(model)
        for name, other, ratio in DAC:
            ours, theirs = by_name[name], by_name[other]
            same = [circuit(theirs, w).energy_j / circuit(ours, w).energy_j for w in WAYS]
            row = {
                "model": model, "ours": name, "theirs": other, "published": ratio,
                "loss": measured[name].mean(), "their_loss": measured[other].mean(),
                "same_width": same[0], "same_width_low": min(same), "same_width_high": max(same),
            }  # fmt: skip
            # Widths of our family that lose what their format does, and the other way round.
            for what, found in (
                ("at_theirs", ratio_at(measured, family(ours.family), [theirs], theirs)),
                ("at_ours", ratio_at(measured, [ours], family(theirs.family), ours)),
            ):
                row |= {what: found.value, f"{what}_low": found.low, f"{what}_high": found.high}
            rows.append(row)
    return pd.DataFrame(rows)


def orders_table() -> pd.DataFrame:
    """A line a pair of an integer and a float and network: who loses less, in standard errors."""
    by_name = {one.name: one for one in entries()}
    rows = []
    for model in losses.SAMPLES:
        measured = samples_of(model)
        for ours, theirs, better in ORDERS:
            apart = measured[theirs] - measured[ours]
            same = [
                circuit(by_name[theirs], w).energy_j / circuit(by_name[ours], w).energy_j
                for w in WAYS
            ]
            area = circuit(by_name[theirs]).area_um2 / circuit(by_name[ours]).area_um2
            rows.append({
                "model": model, "integer": ours, "float": theirs, "published": better,
                "integer_loss": measured[ours].mean(), "float_loss": measured[theirs].mean(),
                "errors_apart": apart.mean() / (apart.std(ddof=1) / np.sqrt(len(apart))),
                "energy": same[0], "energy_low": min(same), "energy_high": max(same), "area": area,
            })  # fmt: skip
    return pd.DataFrame(rows)


TABLES = {
    "formats": formats_table,
    "equal": equal_table,
    "published": published_table,
    "orders": orders_table,
}


def lines() -> list[str]:
    """The README's tables, from the results."""
    return [*equal_lines(), *published_lines(), *orders_lines()]


def _rows(name: str) -> list[dict[str, Any]]:
    table = pd.read_csv(RESULTS / f"{name}.csv")
    return [{str(key): one for key, one in row.items()} for row in table.to_dict("records")]


def _ratio(row: Mapping[str, Any], column: str) -> str:
    return Ratio(value=row[column], low=row[f"{column}_low"], high=row[f"{column}_high"]).words


def equal_lines() -> list[str]:
    """Operations a joule, with interval, and a square millimetre over scaled floats'."""
    rows = _rows("equal")
    found = []
    for model in losses.SAMPLES:
        for name in [one for one in families() if one != BASE]:
            own = [row for row in rows if (row["model"], row["family"]) == (model, name)]
            words = [_ratio(row, "ratio") for row in own]
            cells = [
                f"{word}; {row['area']:.1f}" if word != "–" else word
                for word, row in zip(words, own, strict=True)
            ]
            if any(cell != "–" for cell in cells):
                found.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return found


def published_lines() -> list[str]:
    """The ratios of DAC 2025."""
    return [
        f"| {row['model']} | {row['ours']} over {row['theirs']} | {row['published']} "
        f"| {row['loss']:.2g}, {row['their_loss']:.2g} | {_ratio(row, 'same_width')} "
        f"| {_ratio(row, 'at_theirs')} | {_ratio(row, 'at_ours')} |"
        for row in _rows("published")
    ]


def orders_lines() -> list[str]:
    """The orders of INT v.s. FP."""
    return [
        f"| {row['model']} | {row['integer']} | {row['float']} | {row['published']} "
        f"| {row['integer_loss']:.3g} | {row['float_loss']:.3g} | {row['errors_apart']:+.1f} "
        f"| {_ratio(row, 'energy')} | {row['area']:.2f} |"
        for row in _rows("orders")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="losses that are missing")
    if parser.parse_args().measure:
        for model in losses.SAMPLES:
            losses.measure_missing(model)
    for name, table in TABLES.items():
        table().to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")
    print("\n".join(lines()))


if __name__ == "__main__":
    main()
