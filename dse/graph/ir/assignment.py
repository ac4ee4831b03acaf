"""The quantizer of every site."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from dse.graph.ir.site import SUM
from hwmodels.formats.accumulator import Accumulator, SumQuantizer
from hwmodels.formats.quantizer import Quantizer


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Sorted (site key, quantizer) pairs; a site that is not named keeps the model's precision.

    A site key is `<node>/in<i>` or `<node>/out<i>`, or `<node>/sum` with an accumulator.
    """

    sites: tuple[tuple[str, Quantizer], ...] = ()

    @classmethod
    def of(cls, sites: Mapping[str, Quantizer]) -> Assignment:
        """The assignment of a mapping."""
        return cls(sites=tuple(sorted(sites.items())))

    def __iter__(self) -> Iterator[tuple[str, Quantizer]]:
        return iter(self.sites)

    def as_dict(self) -> dict[str, Quantizer]:
        """Quantizer by site key."""
        return dict(self.sites)

    def replaced(self, changes: Mapping[str, Quantizer | None]) -> Assignment:
        """A copy with some sites changed; None takes a site out."""
        merged: dict[str, Quantizer | None] = {**dict(self.sites), **changes}
        return Assignment.of({key: value for key, value in merged.items() if value is not None})

    @cached_property
    def sums(self) -> Mapping[str, Accumulator]:
        """Accumulators by node."""
        return {
            key.removesuffix(f"/{SUM}"): found.accumulator
            for key, found in self.sites
            if isinstance(found, SumQuantizer)
        }

    @cached_property
    def without_sums(self) -> Assignment:
        """The formats of operands and results alone."""
        kept = tuple(pair for pair in self.sites if not isinstance(pair[1], SumQuantizer))
        return self if len(kept) == len(self.sites) else Assignment(sites=kept)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that are the same for equal assignments, in every process."""
        text = json.dumps([[key, repr(quantizer)] for key, quantizer in self.sites])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
