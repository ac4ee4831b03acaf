"""Values of a graph that integers can hold: the grids that the emulator rounds them to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dse.export.onnx_qdq.plan import Pair, Placement, Sum
from dse.graph.ir.graph import Graph, Node

ORDERLY = ("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Pad", "Concat", "Identity")
"""Operators that commute with rounding: they move values, or take the larger ones."""
SIGN = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The int8 codes of a tensor."""

    scale: float
    zero: int


def grid_of(pair: Pair) -> Grid:
    """The int8 grid with the values of a quantizer; unsigned codes are shifted by half of them."""
    shift = SIGN if pair.zero_point.dtype.name == "uint8" else 0
    return Grid(scale=pair.scale, zero=int(pair.zero_point) - shift)


@dataclass(slots=True, kw_only=True)
class Places:
    """Knowledge about rounding, by value."""

    graph: Graph
    placements: Mapping[str, Placement]
    _readers: dict[str, list[tuple[Node, int]]] = field(init=False)
    _wanted: dict[str, Grid | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._readers = {}
        for node in self.graph.nodes:
            for index, value in enumerate(node.inputs):
                self._readers.setdefault(value, []).append((node, index))

    def read(self, node: Node, index: int) -> Grid | None:
        """The grid that an operand is rounded to before it is read."""
        return self._pair(f"{node.name}/in{index}")

    def written(self, node: Node) -> Grid | None:
        """The grid that an output is rounded to for all who read it."""
        placement = self.placements.get(f"{node.name}/out0")
        if isinstance(placement, Sum):
            placement = placement.then
        return grid_of(placement) if isinstance(placement, Pair) else None

    def stored(self, node: Node) -> Grid | None:
        """The one grid of a result: its own, else that of everybody who reads it."""
        return self.written(node) or self.wanted(node.outputs[0])

    def wanted(self, value: str) -> Grid | None:
        """The one grid on which a value is read by everybody; None where there is none."""
        if value not in self._wanted:
            self._wanted[value] = self._of_readers(value)
        return self._wanted[value]

    def only_reader(self, value: str) -> Node | None:
        """The node that alone reads a value that is no output of the graph."""
        readers = self._readers.get(value, [])
        if value in self.graph.outputs or len(readers) != 1:
            return None
        return readers[0][0]

    def _of_readers(self, value: str) -> Grid | None:
        if value in self.graph.outputs:
            return None
        grids = set(self._grids(value))
        return grids.pop() if len(grids) == 1 else None

    def _grids(self, value: str) -> Iterator[Grid | None]:
        for node, index in self._readers.get(value, []):
            found = self.read(node, index)
            moved = node.op_type in ORDERLY and (index == 0 or node.op_type == "Concat")
            if found is None and moved:
                found = self.stored(node)
            yield found

    def _pair(self, key: str) -> Grid | None:
        placement = self.placements.get(key)
        return grid_of(placement) if isinstance(placement, Pair) else None
