"""Figures that a tool has measured of one model, with the sizes that it measured at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dse.errors import RunError


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A task's metric."""

    name: str
    """`<task>.<metric>`."""
    value: float
    stderr: float | None
    """None where the tool gives none."""
    higher_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The mean KL divergence from the unquantized model, in nats per token."""

    loss: float
    stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Seconds of one forward call."""

    requests: int
    tokens: int
    """New tokens of each request; 1 in a decoding step."""
    context: float
    """Positions that the last of them sees."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Seconds of a batch of requests from prompts to last tokens."""

    requests: int
    prompt: int
    generated: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Figures of a server or engine under a steady load; None: not measured."""

    prompt: float
    """Mean tokens of a prompt."""
    generated: float
    """Mean tokens of an answer."""
    requests: int | None
    """Requests at once; None: as many as it takes, or as come."""
    rate: float | None = None
    """Requests a second that arrived at random; None: as fast as they were answered."""
    answered: float | None = None
    """Requests a second."""
    ttft_s: float | None = None
    """Mean, and the median and the 99th percentile below."""
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tpot_s: float | None = None
    tpot_p99_s: float | None = None
    tokens_per_s: float | None = None
    """Generated tokens of all requests."""
    gpus: int | None = None
    """GPUs that did it; None: the tool does not say."""


Figure = Score | Divergence | Call | Generation | Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One file that a tool has written."""

    file: Path
    tool: str
    model: str
    """Name or path of the model, as the tool says it; empty where it says none."""
    figures: tuple[Figure, ...]


def number(content: Mapping[str, object], key: str, where: str, *, least: float = 0.0) -> float:
    """A figure of a tool's JSON.

    Raises:
        RunError: it is missing, no finite number, or not above `least` (0 itself is, at 0).
    """
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        found = "nothing" if value is None else repr(value)[:40]
        raise RunError(f"{where}: {key}: expected a number, got {found}; measure it again")
    if not math.isfinite(value) or value < least:
        raise RunError(
            f"{where}: {key}: expected a finite number of at least {least:g}, got {value}; "
            "measure it again"
        )
    return float(value)


def positive(content: Mapping[str, object], key: str, where: str) -> float:
    """As `number`, and not 0.

    Raises:
        RunError: as `number`, or it is 0.
    """
    value = number(content, key, where)
    if value == 0:
        raise RunError(f"{where}: {key}: expected a positive number, got 0; measure it again")
    return value


def milliseconds(content: Mapping[str, object], key: str, where: str) -> float | None:
    """Seconds of a figure in milliseconds; None where the tool was not asked for it.

    Raises:
        RunError: as `positive`.
    """
    return None if content.get(key) is None else positive(content, key, where) / 1e3
