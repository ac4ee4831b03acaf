"""The file of a published system: what it adds, what expresses it here, what it claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from hwmodels.validation import Entry, Name

Kind = Literal[
    "format", "rounding", "cost term", "predictor", "search method", "training technique",
    "metric", "study",
]  # fmt: skip
"""Parts of the product that a system adds to."""
Evidence = Literal["published", "probed", "ours"]
"""Origin of an expected figure: the authors' text; an emulation by others than this project, made
apart from it; this project's own measurement."""
Needs = Literal[
    "seconds", "minutes", "a GPU", "FP4 hardware", "a large model", "performance counters",
    "a mechanism",
]  # fmt: skip
"""Requirements of a claim's measurement; only the first two are met wherever the product runs."""
RUN_HERE: tuple[Needs, ...] = ("seconds", "minutes")
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation(Entry):
    """A condition on what a measure returns."""

    row: str = ""
    """Name of the number."""
    over: str = ""
    """Name of a number that it is divided by."""
    minus: str = ""
    """Name of a number that is taken from it."""
    value: Number | None = None
    """The expected number."""
    within: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Largest distance from `value`; 0: exactly that."""
    relative: Positive | None = None
    """The same as a share of `value`."""
    at_least: Number | None = None
    """Lower bound."""
    at_most: Number | None = None
    """Upper bound."""
    rising: tuple[str, ...] = ()
    """Names of numbers of which each is below the next, instead of all the above."""

    def __post_init__(self) -> None:
        """Refuses conditions that say nothing, or two things at once.

        Raises:
            ValueError: as its text says.
        """
        bounds = (self.value, self.at_least, self.at_most)
        if self.rising:
            if self.row or any(one is not None for one in bounds) or len(self.rising) < 2:
                raise ValueError("rising stands alone, with two names or more")
        elif not self.row or all(one is None for one in bounds):
            raise ValueError("expected row with value, at_least or at_most, or rising")
        if (self.value is None) != (self.within is None and self.relative is None):
            raise ValueError("value comes with within or relative, and these come with value")
        if self.over and self.minus:
            raise ValueError("over and minus are one or the other")

    @property
    def rows(self) -> tuple[str, ...]:
        """Every name that it reads."""
        return self.rising or tuple(one for one in (self.row, self.over, self.minus) if one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Entry):
    """One claim of a system, and how it is measured."""

    says: Name
    """A plain sentence."""
    evidence: Evidence
    """Origin of the expected figures."""
    assumed: bool = False
    """Whether they were recalled, or read with third parties only, and verified by nobody."""
    needs: Needs = "seconds"
    """Requirements of the measurement."""
    why: str = ""
    """Reason that it is not run, or a remark on the figures."""
    measure: str = ""
    """Name of a measure (`dse.systems.measures.registry.MEASURES`)."""
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Its options."""
    expect: tuple[Expectation, ...] = ()
    """Conditions, all of which must hold of the mean over seeds."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Seeds that are measured where nobody says otherwise."""

    def __post_init__(self) -> None:
        """Refuses claims that run without a condition, and others without a reason.

        Raises:
            ValueError: as its text says.
        """
        if self.is_run_here and not (self.measure and self.expect):
            raise ValueError("what runs here needs measure and expect")
        if not self.is_run_here and (not self.why or self.measure):
            raise ValueError(f"what needs {self.needs} says why, and names no measure")

    @property
    def is_run_here(self) -> bool:
        """Whether it can be measured wherever the product runs."""
        return self.needs in RUN_HERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses(Entry):
    """Parts of the product that express a system; every name is loaded, none is free text."""

    methods: tuple[str, ...] = ()
    """Shipped methods of training (`dse train --list`)."""
    formats: tuple[str, ...] = ()
    """Formats, with how they are applied (`dse formats`)."""
    schemes: tuple[str, ...] = ()
    """Schemes (`dse formats`)."""
    accumulators: tuple[str, ...] = ()
    """Numbers that products are summed in."""
    devices: tuple[str, ...] = ()
    """Devices, with or without a runtime (`h100-sxm:vllm`)."""
    functions: tuple[str, ...] = ()
    """Mechanisms, as `module:name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System(Entry):
    """A published system. It is data: nothing of the product is named after one."""

    id: Annotated[str, Field(pattern=r"S\d\d")]
    """S01 to S28, the file's name."""
    name: Name
    """The name that it is known by."""
    title: Name
    """Title of the paper."""
    source: Name
    """arXiv number, venue, code that was read."""
    adds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    """Parts of the product that it adds to."""
    uses: Uses
    """Parts of the product that express it."""
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    """Its claims, the quickest to measure first."""
    corrections: tuple[str, ...] = ()
    """Things that are commonly said of it and are not so, or that text and code disagree in."""
