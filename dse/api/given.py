"""Arguments of a program where a file has names: data, and objects as candidates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.data import given_ranks, source_ranks
from dse.space.schema import Mode
from dse.zoo.split import Splits, digest_of
from hwmodels.formats.quantizer import Quantizer

Data = str | Path | Mapping[str, ArrayLike] | Splits | None
"""Origin of samples, as in a space file; arrays named as the graph's inputs plus `labels`;
or the splits themselves, with samples in front. None: as something else says. Arrays are read as
those of an .npz: as the graph takes them, all samples in one."""
Candidate = str | Quantizer | Mode
"""A scheme, a format, or what else a region can take: for weight and activation alike, or a mode
that says which operand takes what."""
GIVEN = "given"
"""The run folder's name for data that a program handed over, with their digest."""


def mode_of(candidate: Candidate) -> str | Mode:
    """A space file's entry for a candidate: a quantizer is a mode of both operands."""
    if isinstance(candidate, Quantizer):
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", candidate.name)
        return Mode.model_validate({"name": name, "weight": candidate, "activation": candidate})
    return candidate


def source_of(data: Data) -> str | None:
    """The space's name for the data; what a program hands over is named by its digest."""
    if data is None:
        return None
    if isinstance(data, str | Path):
        text = str(data)
        return str(Path(text).resolve()) if Path(text).exists() else text
    return f"{GIVEN}:{digest_of(_arrays(data))}"


def _arrays(data: Mapping[str, ArrayLike] | Splits) -> Mapping[str, NDArray[Any]]:
    if isinstance(data, Splits):
        return data.arrays
    return {name: np.asarray(values) for name, values in data.items()}


def ranks_of(data: Data) -> Mapping[str, int]:
    """The axes of a model's inputs by name, as far as the data show them."""
    samples = samples_of(data)
    return source_ranks(str(data or "")) if samples is None else given_ranks(samples)


def samples_of(data: Data) -> Splits | Mapping[str, NDArray[Any]] | None:
    """The samples that a program handed over; None where the space names them."""
    if data is None or isinstance(data, str | Path):
        return None
    return data if isinstance(data, Splits) else _arrays(data)
