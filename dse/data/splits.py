"""Three disjoint splits of a pool of samples, dealt alike in every process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dse import zoo
from dse.data.layout import Arrays, Shapes, check_values, laid_out, pooled
from dse.data.source import ZOO_PREFIX, read_pool
from dse.errors import DataError
from dse.text.reader import TextReader
from dse.zoo.split import Split, Splits

GIVEN = "data"
"""Name in errors of samples that a program handed over."""
SPLIT_NAMES = ("calibration", "search", "report")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Number of samples of each split; none where nobody looks at it."""

    calibration: int
    search: int
    report: int

    @property
    def total(self) -> int:
        """Samples needed of a source."""
        return self.calibration + self.search + self.report


def load_splits(
    source: str,
    sizes: Sizes,
    *,
    sequence: int,
    inputs: Shapes,
    folder: Path = Path(),
    needed: Sizes | None = None,
    vocabulary: int | None = None,
    text: TextReader | None = None,
) -> Splits:
    """The three splits of a source.

    Args:
        source: see `dse.space.schema.Data`.
        sizes: samples a split.
        sequence: tokens of one sample, where the source is text.
        inputs: shape of every graph input: what arrays must be there, and what fits them.
        folder: what relative paths are relative to.
        needed: what will do where the source has less than `sizes`.
        vocabulary: entries of the model's vocabulary, where it has one.
        text: how the model reads text; None: bytes are the tokens.

    Raises:
        DataError: no such source, wrong names or shapes, too few samples, NaN, text for a model
            whose vocabulary is not bytes.
    """
    if source.startswith(ZOO_PREFIX):
        splits = _from_zoo(source.removeprefix(ZOO_PREFIX), sizes, sequence)
    else:
        pool = read_pool(
            source, sizes.total, sequence, inputs, folder, vocabulary=vocabulary, text=text
        )
        splits = deal(pool, sizes, origin=source, needed=needed)
    return checked(splits, inputs, source)


def given_splits(
    given: Splits | Arrays, sizes: Sizes, inputs: Shapes, needed: Sizes | None = None
) -> Splits:
    """The splits of what a program handed over: arrays mean what they mean in an archive.

    Args:
        given: arrays as the graph takes them and `labels`, dealt here; or the splits themselves,
            which have samples in front.
        sizes: samples a split.
        inputs: shape of every graph input.
        needed: what will do where there are fewer.

    Raises:
        DataError: arrays that do not fit the graph, or too few samples.
    """
    if not isinstance(given, Splits):
        pool = pooled(given, inputs, GIVEN)
        for name, values in pool.inputs.items():
            check_values(values, f"{GIVEN}: {name}")
        given = deal(pool, sizes, origin=GIVEN, needed=needed)
    return checked(given, inputs, GIVEN)


def checked(splits: Splits, inputs: Shapes, source: str) -> Splits:
    """The splits with samples where the graph wants them.

    Raises:
        DataError: arrays that do not fit the graph.
    """
    parts = {name: laid_out(getattr(splits, name), inputs, f"{source}: {name}")
             for name in SPLIT_NAMES}  # fmt: skip
    return Splits(**parts)


def deal(pool: Split, sizes: Sizes, *, origin: str, needed: Sizes | None = None) -> Splits:
    """Three disjoint parts of a pool, each spread over the whole of it.

    Args:
        pool: all samples.
        sizes: of the parts.
        origin: what errors call the pool.
        needed: what will do where the pool has less; then the report split is dealt first, so
            that it does not depend on what else is needed.

    Raises:
        DataError: the pool has fewer samples than the parts need together.
    """
    names = SPLIT_NAMES
    if needed is not None and pool.samples < sizes.total:
        names, sizes = SPLIT_NAMES[::-1], needed
    if pool.samples < sizes.total:
        raise DataError(
            f"{origin}: has {pool.samples} samples, but calibration {sizes.calibration} + search "
            f"{sizes.search} + report {sizes.report} need {sizes.total}; give more samples or "
            "lower data.calibration, data.search or data.report"
        )
    order = np.random.default_rng(0).permutation(pool.samples)
    edges = np.cumsum([getattr(sizes, name) for name in names])
    parts = dict(zip(names, np.split(order[: edges[-1]], edges[:-1]), strict=True))
    return Splits(**{name: _take(pool, np.sort(part)) for name, part in parts.items()})


def _take(split: Split, rows: np.ndarray) -> Split:
    return replace(
        split,
        inputs={name: values[rows] for name, values in split.inputs.items()},
        labels=None if split.labels is None else split.labels[rows],
    )


def _from_zoo(name: str, sizes: Sizes, sequence: int) -> Splits:
    limits = {part: getattr(sizes, part) for part in SPLIT_NAMES}
    splits = zoo.splits(name, limits=limits, sequence=sequence)
    for part, limit in limits.items():
        available = getattr(splits, part).samples
        if available < limit:
            raise DataError(
                f"zoo:{name}: the {part} split has {available} samples of this length, "
                f"data.{part} asks for {limit}"
            )
    return splits
