"""The share of a list of published methods that are files of this product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from dse.errors import MethodError, StudyError
from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from hwmodels.errors import HardwareError
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry, Name, validated
from hwmodels.yaml_file import read_yaml

FOLDER = Path(__file__).parents[1] / "catalogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Entry):
    """A published method of a list."""

    name: Name
    """As the list has it."""
    family: Name
    """The part of the list that it stands in."""
    method: MethodGiven | None = None
    """The method file that expresses it."""
    format: str = ""
    """Or the format, of one that is no method of training."""
    missing: str = ""
    """Or the value of an axis that nothing here has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressible(Entry):
    """Entries of a list as method files, each validated as a user's would be."""

    draws: ClassVar[bool] = False
    entries: Annotated[str, Field(pattern=r"[a-z_]+\.yaml")]
    """File of the list, beside those of the systems."""

    def rows(self, seed: int) -> Rows:
        """Counts of `entries`, `expressible`, `missing`; `wrong` are neither; `share` in percent.

        Raises:
            StudyError: a list that cannot be read.
        """
        del seed
        path = FOLDER / self.entries
        adapter: TypeAdapter[Any] = TypeAdapter(tuple[Listed, ...])
        found = validated(adapter, read_yaml(path, StudyError, what="list"), str(path), StudyError)
        kinds = [_kind(one) for one in found]
        counts: Mapping[str, float] = {
            name: float(kinds.count(name)) for name in ("expressible", "missing", "wrong")
        }
        share = 100 * counts["expressible"] / len(found)
        return {"entries": float(len(found)), **counts, "share": share}


def _kind(one: Listed) -> str:
    if one.missing:
        return "wrong" if one.method or one.format else "missing"
    try:
        if one.format:
            quantizer(one.format)
        elif one.method is not None:
            given_method(one.method)
        else:
            return "wrong"
    except (MethodError, HardwareError):
        return "wrong"
    return "expressible"
