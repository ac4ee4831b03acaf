"""Findings on a loss, by name: undefined outputs, bad weights, unseen layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dse.errors import DataError, some
from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.evaluate.quality import Quality
from dse.evaluate.reach import SHOWN
from dse.evaluate.ruin import ConstantAnswer
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Site
from dse.numerics.transforms import ROTATIONS, transform_arguments
from hwmodels.formats.quantizer import Quantizer

FLOATS = ("float", "bfloat")
SAME = 1e-12
"""Loss of a constant answer, in nats or spreads, below which all answers are one: rounding."""


def check_defined(output: Output, defined: Sequence[Tensor], graph: Graph, split: str) -> None:
    """Raises `DataError` where full precision has nothing that a loss could be read from."""
    whole = torch.cat(list(defined))
    if not len(whole) or bool(whole.any()):
        return
    bad = some(bad_weights(graph), SHOWN)
    why = f"; weights that hold NaN or Inf: {bad}" if bad else ""
    raise DataError(
        f"{graph.path or graph.name}: output {output.name} is NaN or infinite on every sample of "
        f"the {split} split in full precision{why}"
    )


def bad_weights(graph: Graph) -> Iterator[str]:
    """Constants with NaN, and with Inf where they are more than a mask (which is -inf)."""
    for name, constant in graph.initializers.items():
        if not constant.has_data or not constant.type.dtype.startswith(FLOATS):
            continue
        values = np.asarray(constant.numpy())
        if values.size and not _is_sound(values):
            yield name


def _is_sound(values: np.ndarray) -> bool:
    # NaN and infinities survive a sum; only a sum that is lost is looked at closer.
    if values.dtype.kind != "f":
        values = values.astype(np.float32)
    with np.errstate(all="ignore"):
        if math.isfinite(float(np.sum(values, dtype=np.float64))):
            return True
    odd = ~np.isfinite(values)
    if not odd.any():
        return True
    mask = values.ndim < 2 or set(np.unique(values[~odd])) <= {0.0}
    return mask and bool(np.isneginf(values[odd]).all())


def idle_rotations(
    sites: Mapping[str, Site], pairs: Sequence[tuple[str, Quantizer]]
) -> Iterator[str]:
    """Rotations longer than a row, which leave every row of an operand as it is.

    Args:
        sites: by key.
        pairs: what may stand at which site.
    """
    for spec in dict.fromkeys(spec for _, one in pairs for spec in one.transforms):
        name, arguments = transform_arguments(spec)
        if name not in ROTATIONS:
            continue
        used = dict.fromkeys(key for key, one in pairs if spec in one.transforms)
        rows = {key: _row(sites[key]) for key in used}
        if short := [
            key
            for key, row in rows.items()
            if row is not None and row < max(arguments[:1], default=0)
        ]:
            lengths = sorted({str(rows[key]) for key in short}, key=int)
            yield (
                f"{spec}: longer than the rows of {some(short, SHOWN)} "
                f"({', '.join(lengths)} values), which it leaves as they are"
            )


def _row(site: Site) -> int | None:
    """Values along the axes that a product sums over; None where a size is not known."""
    sizes = [site.shape[axis] for axis in site.contraction_axes]
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if sizes and len(known) == len(sizes) else None


def remarks(task: Task) -> Iterator[str]:
    """Assumptions about outputs of which nothing says what they are."""
    alike: dict[tuple[str, str], list[str]] = {}
    for output in task.outputs:
        if not output.certain:
            alike.setdefault((output.kind, output.reason), []).append(output.name)
    for (kind, reason), names in alike.items():
        yield (
            f"output {', '.join(names)}: taken for {kind.replace('_', ' ')}, as {reason}; if it "
            f"is something else, say it under quality: kinds: {{{names[0]}: logits}} (or --kind)"
        )


def verdict(quality: Quality, constant: ConstantAnswer, unit: str) -> str:
    """Says that nothing is left of a network, or that its loss is no number; empty otherwise."""
    if not math.isfinite(quality.loss):
        lost = sum(not math.isfinite(loss) for loss in quality.losses)
        return (
            f"the loss is infinite: under this assignment outputs are NaN or infinite on {lost} "
            f"of {quality.samples} samples"
        )
    if constant.loss <= SAME:
        return (
            "full precision answers the same to every sample that was measured: a loss says "
            "nothing here, whatever the formats"
        )
    if not constant.as_bad(quality.loss, quality.flip_rate):
        return ""
    flips = ""
    if not math.isnan(quality.flip_rate):
        flips = (
            f", and {100 * quality.flip_rate:.0f} % of the answers change "
            f"(a constant one: {100 * constant.flip_rate:.0f} %)"
        )
    return (
        f"nothing of the network is left: the loss, {quality.loss:.3g} {unit}, is that of a "
        f"constant answer ({constant.loss:.3g}) or worse{flips}"
    )
