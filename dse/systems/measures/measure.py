"""The seam of measures: options of a claim as a record that returns named numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

Rows = Mapping[str, float]
"""Numbers by name."""


class Measure(Protocol):
    """Options of a measurement, and the measurement.

    Laws, which `tests/contracts/test_systems.py` holds every one to: equal options and seeds give
    equal rows; of one that draws nothing, all seeds do.
    """

    draws: ClassVar[bool]
    """Whether rows depend on the seed."""

    def rows(self, seed: int) -> Rows:
        """The numbers, by the names that expectations use."""
