"""Bounds on columns as users write them: `<column><=<number>` or `<column>>=<number>`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dse.errors import SpaceError

PATTERN = re.compile(r"\s*(?P<column>[\w.\-]+)\s*(?P<sense><=|>=)\s*(?P<limit>[-+\w.]+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound on a column: an upper one, or a lower one."""

    column: str
    limit: float
    at_least: bool = False
    """Whether the limit is a lower one."""

    def __str__(self) -> str:
        short = f"{self.limit:g}"
        limit = short if float(short) == self.limit else repr(self.limit)
        return f"{self.column}{'>=' if self.at_least else '<='}{limit}"

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a row satisfies it; one that lacks the column does not."""
        return self.excess(values.get(self.column, math.nan)) <= 0

    def excess(self, value: float) -> float:
        """Excess of a value over the limit, as a share of the limit; at most 0 within it."""
        beyond = self.limit - value if self.at_least else value - self.limit
        return beyond / (abs(self.limit) or 1.0)


def parse_constraint(text: str, *, origin: str) -> Constraint:
    """The bound that a text says, whatever the column.

    Args:
        text: `<column><=<number>` or `<column>>=<number>`; the number is finite.
        origin: where errors say that it stands.

    Raises:
        SpaceError: not of that form.
    """
    match = PATTERN.fullmatch(text)
    if match is None:
        raise SpaceError(
            f"{origin}: expected '<column><=<number>' or '<column>>=<number>', e.g. "
            f"'weight_bytes<=2e9', got {text!r}"
        )
    try:
        limit = float(match["limit"])
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise SpaceError(f"{origin}: {match['limit']!r} in {text!r} is not a finite number")
    return Constraint(column=match["column"], limit=limit, at_least=match["sense"] == ">=")
