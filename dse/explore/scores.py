"""Scores of tasks in a study: kept beside the reference's, and turned into losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dse.bench.reading import Score
from dse.explore.problem.link import (
    Degradation,
    Link,
    degradation,
    linked,
    losses_of_scores,
    relative_error,
)
from dse.explore.problem.records import SCORE, STDERR, Record
from dse.explore.restore import RestoredRun
from dse.explore.study.outside import OutsideMeasurement, outside_measurements

REFERENCE = "reference."
"""Prefix of the study attributes that hold the unquantized model's scores, by column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLosses:
    """Losses that scores tell of."""

    told: Mapping[str, OutsideMeasurement]
    """Digest -> what was told with its estimated loss, of assignments without a measured one."""
    remarks: tuple[str, ...]
    """A line a score: its factor, or why it has none."""


def keep_reference(past: RestoredRun, reference: Mapping[str, Score]) -> None:
    """Put the unquantized model's scores into the study."""
    for column, score in reference.items():
        content = {
            "value": score.value, "stderr": score.stderr, "higher": score.higher_is_better,
        }  # fmt: skip
        past.study.set_user_attr(f"{REFERENCE}{column}", content)


def losses_of(past: RestoredRun, told: Mapping[str, OutsideMeasurement]) -> ScoredLosses:
    """Losses of what was told with scores and without a loss, and was never emulated.

    Args:
        past: the run; its study has everything that was told so far.
        told: what is being told, by digest.
    """
    everything = {**outside_measurements(past.study.user_attrs, past.design.problem), **told}
    lost, unknown = _degradations(past, everything)
    expected, error = _expected(past, everything)
    links: dict[str, Link] = {}
    remarks = list(unknown)
    for name in sorted({name for scores in lost.values() for name in scores}):
        have = [digest for digest, scores in lost.items() if name in scores]
        found = linked([expected[d] for d in have], [lost[d][name] for d in have])
        if isinstance(found, str):
            remarks.append(f"{name}: says nothing of the loss yet: {found}")
            continue
        links[name] = found
        remarks.append(
            f"{name}: {found.factor:.3g} nats a unit lost, over {len(have)} assignments"
        )
    measured = {record.digest for record in _emulated(past, everything)}
    open_ = {
        digest: expected[digest]
        for digest, scores in lost.items()
        if scores and digest not in measured and not _is_measured(everything[digest])
    }
    losses = losses_of_scores(open_, error, lost, links)
    return ScoredLosses(
        told={
            digest: replace(everything[digest], estimate=pair) for digest, pair in losses.items()
        },
        remarks=tuple(remarks),
    )


def _emulated(past: RestoredRun, told: Mapping[str, OutsideMeasurement]) -> list[Record]:
    """The records whose losses are not what earlier scores have told."""
    return [
        record
        for record in past.records
        if record.digest not in told or not told[record.digest].is_estimated
    ]


def _is_measured(one: OutsideMeasurement) -> bool:
    return one.quality() is not None and not one.is_estimated


def _degradations(
    past: RestoredRun, told: Mapping[str, OutsideMeasurement]
) -> tuple[dict[str, dict[str, Degradation]], list[str]]:
    """Digest -> score -> what it lost, and the scores that the reference lacks."""
    base = {
        key.removeprefix(REFERENCE): content
        for key, content in past.study.user_attrs.items()
        if key.startswith(REFERENCE)
    }
    found: dict[str, dict[str, Degradation]] = {}
    missing: dict[str, None] = {}
    for digest, one in told.items():
        found[digest] = {}
        for column, value in one.values.items():
            if not column.startswith(SCORE) or column.endswith(STDERR):
                continue
            if column not in base:
                missing[f"{column}: the unquantized model was not measured (results/reference), "
                        "so it says nothing of the loss"] = None  # fmt: skip
                continue
            known = base[column]
            found[digest][column] = degradation(
                column,
                (value, one.values.get(f"{column}{STDERR}")),
                (known["value"], known["stderr"]),
                higher_is_better=known["higher"],
            )
    return found, list(missing)


def _expected(
    past: RestoredRun, told: Mapping[str, OutsideMeasurement]
) -> tuple[dict[str, float], float]:
    """Digest -> loss: told, else emulated, else predicted; and the share that predictions err.

    What scores told before is no measurement: a factor that was fitted to it would confirm itself.
    """
    records = _emulated(past, told)
    points = np.array([record.point for record in records])
    losses = np.array([record.search.loss for record in records])
    surrogate = past.surrogate.refitted(points, losses)
    expected = {
        digest: float(surrogate.predict(np.array([one.point]))[0]) for digest, one in told.items()
    }
    expected |= {
        record.digest: record.search.loss for record in records if record.digest in expected
    }
    expected |= {
        digest: quality.loss
        for digest, one in told.items()
        if (quality := one.quality()) is not None and not one.is_estimated
    }
    return expected, relative_error(surrogate.predict(points), losses)
