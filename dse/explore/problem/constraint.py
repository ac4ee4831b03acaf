"""Bounds on columns: `<column><=<number>`, `max_batch>=<number>`, `native-only`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dse.errors import SpaceError, nearest
from dse.evaluate.target_costs import MORE_IS_BETTER
from dse.explore.problem.records import LOSS
from dse.space.constraint import Constraint, parse_constraint
from hwmodels.formats.catalog import quantizer
from hwmodels.work.work import Operand, Work

QUALITY = LOSS
NATIVE_SHARE = "native_share"
NATIVE_ONLY = ("native-only", "native_only")
"""Other names of `native_share>=1`."""
BITS_PER_WEIGHT = "bits_per_weight"
"""Another unit of `weight_bytes`: bits over all stored weights, scales included."""
INT8_SHARE = "int8_share"
"""Another unit of `weight_bytes`: what `int8_bytes` says, whose scales and biases count, too."""
UNITS = (BITS_PER_WEIGHT, INT8_SHARE)
EIGHT_BITS = "int8_channel"


def is_loss(column: str) -> bool:
    """Whether a column is the loss of some target's network."""
    return column.rpartition(".")[2] == LOSS


def parse_constraints(
    texts: Sequence[str],
    columns: Sequence[str],
    *,
    origin: str,
    losses: Sequence[str] = (LOSS,),
    targets: Sequence[str] = (),
    units: Mapping[str, float] | None = None,
) -> tuple[Constraint, ...]:
    """The constraints of a space.

    Args:
        texts: as users write them.
        columns: cost columns that may be bounded.
        origin: what errors call the space.
        losses: loss columns that are objectives; `quality_loss` bounds all of them.
        targets: prefixes of columns; a column without one is bounded on all of them.
        units: bytes of one `bits_per_weight` and of all of `int8_share`, which bound
            `weight_bytes`; without them both are unknown columns.

    Raises:
        SpaceError: not of the form `<column><=<number>`, an unknown column, or the wrong sense.
    """
    parsed: list[Constraint] = []
    for number, text in enumerate(texts):
        where = f"{origin}: constraints.{number}"
        asked = _in_bytes(parse_bound(text, origin=where), units or {})
        found = _columns(asked.column, losses, columns, targets)
        if not found:
            known = [*losses, *columns]
            _check_loss(asked.column, targets, where)
            raise SpaceError(
                f"{where}: unknown column {asked.column!r}{nearest(asked.column, known)} "
                f"(known: {', '.join(known)})"
            )
        at_least = found[0].rpartition(".")[2] in MORE_IS_BETTER
        if asked.at_least is not at_least:
            wanted = "at least" if at_least else "at most"
            raise SpaceError(
                f"{where}: {asked.column} is bounded by what it may be {wanted}: write "
                f"'{replace(asked, column=found[0], at_least=at_least)}'"
            )
        parsed += [replace(asked, column=name) for name in found]
    return tuple(parsed)


def parse_bound(text: str, *, origin: str) -> Constraint:
    """The bound that a text of a space says, `native-only` among them, whatever the column.

    Args:
        text: as users write it.
        origin: where errors say that it stands.

    Raises:
        SpaceError: not of the form `<column><=<number>`.
    """
    if text.strip() in NATIVE_ONLY:
        return Constraint(column=NATIVE_SHARE, limit=1.0, at_least=True)
    return parse_constraint(text, origin=origin)


def int8_bytes(work: Work) -> int:
    """Bytes of a network's weights were all of them `int8_channel`, each stored once.

    Vectors (biases, scales of norms) stay as they are: no recipe touches them.
    """
    eight = quantizer(EIGHT_BITS).format
    return sum(
        operand.bytes
        if len(operand.shape) < 2
        else eight.storage_bytes(operand.shape, operand.contraction_axes or (-1,))
        for operand in _stored(work)
    )


def stored_elements(work: Work) -> int:
    """Elements of all that `weight_bytes` counts, each stored once."""
    return sum(operand.elements for operand in _stored(work))


def _stored(work: Work) -> Iterable[Operand]:
    """Constants that a network stores: one of the operands that name each."""
    return {
        operand.value: operand
        for region in work.regions
        for operand in region.reads
        if operand.is_weight
    }.values()


def _in_bytes(asked: Constraint, units: Mapping[str, float]) -> Constraint:
    """A bound in a unit of bytes as one on bytes; others as they are."""
    unit = asked.column.rpartition(".")[2]
    if unit not in units:
        return asked
    column = asked.column.removesuffix(unit) + "weight_bytes"
    return replace(asked, column=column, limit=asked.limit * units[unit])


def _columns(
    column: str, losses: Sequence[str], known: Sequence[str], targets: Sequence[str]
) -> list[str]:
    """The columns that a name stands for: itself, or one a target."""
    if column == LOSS:
        return list(losses)
    if column in (*losses, *known):
        return [column]
    return [name for target in targets if (name := f"{target}.{column}") in known]


def _check_loss(column: str, targets: Sequence[str], where: str) -> None:
    """A loss of a target that no objective is about is measured for the front alone."""
    label = column.removesuffix(LOSS).removesuffix(".")
    if is_loss(column) and label in targets:
        raise SpaceError(
            f"{where}: {column} is no objective, or the same as {LOSS}: bound {LOSS}, or make a "
            f"cost of {label} an objective, e.g. {label}.latency_s"
        )
