"""Hard constraints: `<column><=<number>`, `max_batch>=<number>`, `native-only`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.errors import SpaceError, nearest
from dse.evaluate.target_costs import MORE_IS_BETTER

PATTERN = re.compile(r"^\s*(?P<column>[\w.\-]+)\s*(?P<sense><=|>=)\s*(?P<limit>[-+0-9.eE]+)\s*$")
QUALITY = "quality_loss"
NATIVE_SHARE = "native_share"
NATIVE_ONLY = ("native-only", "native_only")
"""What `native_share>=1` may be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound on a column: an upper one, or a lower one on what more of is better."""

    column: str
    limit: float

    @property
    def at_least(self) -> bool:
        """Whether the limit is a lower one."""
        return self.column.rpartition(".")[2] in MORE_IS_BETTER

    def __str__(self) -> str:
        return f"{self.column}{'>=' if self.at_least else '<='}{self.limit:g}"

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a row satisfies it."""
        return self.excess(values[self.column]) <= 0

    def excess(self, value: float) -> float:
        """How far beyond the limit a value is, as a share of the limit; at most 0 within it."""
        beyond = self.limit - value if self.at_least else value - self.limit
        return beyond / (abs(self.limit) or 1.0)


def parse_constraints(
    texts: Sequence[str], columns: Sequence[str], *, origin: str, targets: Sequence[str] = ()
) -> tuple[Constraint, ...]:
    """The constraints of a space.

    Args:
        texts: as users write them.
        columns: cost columns that may be bounded.
        origin: what errors call the space.
        targets: prefixes of columns; a column without one is bounded on all of them.

    Raises:
        SpaceError: not of the form `<column><=<number>`, an unknown column, or the wrong sense.
    """
    parsed: list[Constraint] = []
    for number, text in enumerate(texts):
        where = f"{origin}: constraints.{number}"
        column, sense, limit = _parts(text, where)
        found = _columns(column, columns, targets)
        if not found:
            known = [QUALITY, *columns]
            raise SpaceError(
                f"{where}: unknown column {column!r}{nearest(column, known)} "
                f"(known: {', '.join(known)})"
            )
        one = Constraint(column=found[0], limit=limit)
        if (sense == ">=") is not one.at_least:
            wanted = "at least" if one.at_least else "at most"
            raise SpaceError(
                f"{where}: {column} is bounded by what it may be {wanted}: write '{one}'"
            )
        parsed += [Constraint(column=name, limit=limit) for name in found]
    return tuple(parsed)


def _parts(text: str, where: str) -> tuple[str, str, float]:
    """Column, sense and limit of a constraint."""
    if text.strip() in NATIVE_ONLY:
        return NATIVE_SHARE, ">=", 1.0
    match = PATTERN.match(text)
    if match is None:
        raise SpaceError(
            f"{where}: expected '<column><=<number>', e.g. 'weight_bytes<=2e9', "
            f"'native_share>=<number>' or 'native-only', got {text!r}"
        )
    try:
        return match["column"], match["sense"], float(match["limit"])
    except ValueError:
        raise SpaceError(f"{where}: {match['limit']!r} is not a number") from None


def _columns(column: str, known: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The columns that a name stands for: itself, or one a target."""
    if column == QUALITY or column in known:
        return [column]
    return [name for target in targets if (name := f"{target}.{column}") in known]
