"""Names of elements and accumulators in device files, checked as the file is read."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from hwmodels.errors import UnknownFormatError, nearest
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format
from hwmodels.formats.encodings import ENCODINGS


@lru_cache(maxsize=1024)
def _element(name: str) -> str:
    if name not in ENCODINGS:
        try:
            format(name)
        except UnknownFormatError:
            raise ValueError(
                f"unknown element {name!r}{nearest(name, ENCODINGS)}; see: dse formats"
            ) from None
    return name


def _accumulator(name: str) -> str:
    try:
        accumulator(name)
    except UnknownFormatError as error:
        raise ValueError(str(error)) from None
    return name


Element = Annotated[str, AfterValidator(_element)]
"""An element that units multiply: one of `dse formats`, or spelled out (docs/formats.md)."""
AccumulatorName = Annotated[str, AfterValidator(_accumulator)]
"""An accumulator, as `hwmodels.formats.accumulator` names it."""
