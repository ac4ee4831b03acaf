"""Hard constraints: `<column><=<number>`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.errors import SpaceError, nearest

PATTERN = re.compile(r"^\s*(?P<column>[\w.\-]+)\s*<=\s*(?P<limit>[-+0-9.eE]+)\s*$")
QUALITY = "quality_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """An upper bound on a column."""

    column: str
    limit: float

    def __str__(self) -> str:
        return f"{self.column}<={self.limit:g}"

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a row satisfies it."""
        return values[self.column] <= self.limit


def parse_constraints(
    texts: Sequence[str], columns: Sequence[str], *, origin: str
) -> tuple[Constraint, ...]:
    """The constraints of a space.

    Raises:
        SpaceError: not of the form `<column><=<number>`, or an unknown column.
    """
    known = [QUALITY, *columns]
    parsed = []
    for number, text in enumerate(texts):
        where = f"{origin}: constraints.{number}"
        match = PATTERN.match(text)
        if match is None:
            raise SpaceError(
                f"{where}: expected '<column><=<number>', e.g. 'weight_bytes<=2e9', got {text!r}"
            )
        column = match["column"]
        if column not in known:
            raise SpaceError(
                f"{where}: unknown column {column!r}{nearest(column, known)} "
                f"(known: {', '.join(known)})"
            )
        try:
            limit = float(match["limit"])
        except ValueError:
            raise SpaceError(f"{where}: {match['limit']!r} is not a number") from None
        parsed.append(Constraint(column=column, limit=limit))
    return tuple(parsed)
