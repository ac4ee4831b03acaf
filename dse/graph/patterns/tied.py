"""Tied tables: constants whose rows a look-up reads and a product multiplies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.site import Site
from dse.graph.patterns.flow import Flow

TURNED = (1, 0)
"""The permutation of a matrix's transpose."""
COPIES = frozenset({"Cast", "Identity"})
ROW = 1
"""The axis of a table along which a row lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A product's weight that holds the values of a table."""

    site: Site
    turned: bool
    """Whether it is the table's transpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """A look-up's table with the products that sum over its rows: one copy can serve them all."""

    look_up: Site
    products: tuple[Reader, ...]


def ties(flow: Flow, tables: Sequence[Site], sites: Sequence[Site]) -> tuple[Tie, ...]:
    """The tied tables of a graph.

    Args:
        flow: of the graph.
        tables: first operands of look-ups, (words, depth).
        sites: of products; those that do not sum over the depth of a table are no readers of it,
            since their scales lie elsewhere.
    """
    matrices = [
        (_origin(flow, site.value), site)
        for site in sites
        if site.role == "weight" and len(site.shape) == len(TURNED)
    ]
    found = []
    for table in tables:
        name, flipped = _origin(flow, table.value)
        readers = tuple(
            Reader(site=site, turned=turned != flipped)
            for (origin, turned), site in matrices
            if origin == name and _sums_rows(site, turned=turned != flipped)
        )
        if readers:
            found.append(Tie(look_up=table, products=readers))
    return tuple(found)


def _sums_rows(site: Site, *, turned: bool) -> bool:
    return site.contraction_axes == ((1 - ROW if turned else ROW),)


def _origin(flow: Flow, value: str) -> tuple[str, bool]:
    """The constant that a matrix is, and whether it is its transpose."""
    turned = False
    for node in _copies(flow, value):
        turned ^= node.op_type == "Transpose"
        value = node.inputs[0]
    return value, turned


def _copies(flow: Flow, value: str) -> Iterator[Node]:
    """Transposes, casts and copies behind a value, last first."""
    while (node := flow.graph.producer.get(value)) is not None:
        order = node.attributes.get("perm", TURNED)
        turns = node.op_type == "Transpose" and tuple(order) == TURNED  # type: ignore[arg-type]
        if not turns and node.op_type not in COPIES:
            return
        yield node
        value = node.inputs[0]
