"""Numbers as people read them: SI prefixes, three digits, uncertainties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodels.tables.speedup import Speedup

PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}

UNITS = {"_s_per_request": "s", "_bytes_per_s": "B/s", "_per_mtok": "USD", "_mm2": "mm²",
         "_s": "s", "_j": "J", "_w": "W", "_bytes": "B"}  # fmt: skip
"""Ends of columns' names, and the unit that says; the longest first."""

MOST_DECIMALS = 5
"""Beyond these, a power of ten is split off."""

UNPREFIXED = ("mm²", "USD")
"""Units that take no prefix: they have one, or nobody writes them with one."""

DASH = "–"
"""Printed where nothing was measured."""


def si(value: float | None, unit: str) -> str:
    """Three significant digits with an SI prefix: `41.2 ms`, `4.51 GB`; a dash for None.

    Bytes count in powers of ten and are not divided below one.
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0 or unit in UNPREFIXED:
        return f"{digits(value)} {unit}"
    least = 0 if unit == "B" else -12
    power = min(max(3 * math.floor(_exponent(value, 3) / 3), least), 12)
    return f"{digits(value / 10.0**power)} {PREFIXES[power]}{unit}"


def digits(value: float, significant: int = 3) -> str:
    """A number with that many significant digits, never in exponent form."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = significant - 1 - _exponent(value, significant)
    return f"{round(value, places):.{max(places, 0)}f}"


def _exponent(value: float, significant: int) -> int:
    """The power of ten of the first digit, once rounded to that many digits: 0 for 0.9996."""
    return int(f"{value:.{significant - 1}e}".partition("e")[2])


def loss_text(value: float | None, stderr: float = 0.0) -> str:
    """`0.0123 ± 0.0011`: decimals as the error deserves, two of its digits where it begins with 1.

    Three significant digits where the error is unknown; a dash for None.
    """
    if value is None:
        return DASH
    if value == 0 and stderr == 0:
        return "0"
    if stderr <= 0 or not (math.isfinite(stderr) and math.isfinite(value)):
        return digits(value)
    leading = _exponent(stderr, 2)
    places = max((1 if stderr < 2 * 10.0**leading else 0) - leading, 0)
    if places > MOST_DECIMALS:
        power = _exponent(value, 2) if value else leading
        scaled, error, places = value / 10.0**power, stderr / 10.0**power, max(places + power, 0)
        return f"({scaled:.{places}f} ± {error:.{places}f})e{power}"
    return f"{value:.{places}f} ± {stderr:.{places}f}"


def ratio(value: float | None) -> str:
    """`1.92×`; a dash for None."""
    return DASH if value is None else f"{value:.2f}×"


def speedup_text(found: Speedup) -> str:
    """`1.92× (1.85 to 2.00)`; the factor alone where nothing is in doubt."""
    ends = f"{found.low:.2f} to {found.high:.2f}"
    same = f"{found.factor:.2f} to {found.factor:.2f}"
    return ratio(found.factor) if ends == same else f"{ratio(found.factor)} ({ends})"


def spread_text(found: Speedup) -> str:
    """`1.92×±4%`: a factor, and how far the ends of its interval are, if they are at all."""
    if not found.factor or not math.isfinite(found.factor) or found.high <= found.factor:
        return ratio(found.factor)
    reach = 100 * (found.high / found.factor - 1)
    return f"{ratio(found.factor)}±{digits(reach, 1) if reach < 1 else round(reach)}%"


def percent(value: float | None) -> str:
    """`86 %`; a dash for None. Below one but not all never reads as 100 %."""
    if value is None:
        return DASH
    shown = math.floor(value * 100) if value < 1 else 100
    return f"{shown} %"


def unit_of(column: str) -> str:
    """The SI unit that ends a column's name: s, J, B, B/s, or nothing."""
    return UNITS.get(_ending(column), "")


def without_unit(column: str) -> str:
    """A column's name in words, without its unit: `peak` of `peak_bytes`."""
    return column.removesuffix(_ending(column)).replace("_", " ")


def _ending(column: str) -> str:
    return next((ending for ending in UNITS if column.endswith(ending)), "")
