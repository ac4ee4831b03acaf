"""A graph as LiteRT's operators: integers where the emulator rounds, float32 elsewhere.

Values of four axes are stored with their channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.litert.file import Array, File
from dse.export.litert.places import Grid, Places
from dse.export.onnx_qdq.plan import Placement
from dse.graph.ir.graph import Node
from dse.graph.onnx.convert import ONNX_DOMAIN

LAST = (0, 2, 3, 1)
FIRST = (0, 3, 1, 2)
KNOWN = (
    "Conv (plain and depthwise), Gemm, MatMul with a weight, Add, Relu, Clip to 0 and 6, MaxPool, "
    "AveragePool, GlobalAveragePool, ReduceMean over space, Pad, Concat, Reshape, Flatten and "
    "Softmax are written"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product with a weight that was written, for those who check it."""

    node: str
    inputs: tuple[int, int, int]
    """Numbers of activation, weight and bias."""
    output: int
    integer: bool
    """Whether LiteRT multiplies integers there."""
    order: tuple[int, ...]
    """The axes of the model's weight, as the file has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """Codes that come of other ones without a weight, for those who check them."""

    kind: Literal["sum", "mean", "same"]
    """Of two tensors, over an image, or the same numbers on another grid."""
    inputs: tuple[int, ...]
    output: int


@dataclass(slots=True)
class Network:
    """The operators of a recipe, with what has none."""

    recipe: Recipe
    placements: Mapping[str, Placement]
    file: File = field(default_factory=File)
    products: list[Product] = field(default_factory=list)
    averages: list[Product] = field(default_factory=list)
    """Pools that are written as products with ones."""
    combined: list[Combined] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    """Nodes that are a part of another operator."""
    held: dict[tuple[str, Grid | None], int] = field(default_factory=dict)
    """Tensors by value and grid (None: float32)."""
    made: dict[str, Grid | None] = field(default_factory=dict)
    """The grid that a value was made on."""
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places(graph=self.recipe.graph, placements=self.placements)

    def lower(self, handlers: Mapping[str, Callable[[Network, Node], None]]) -> None:
        """Write every node, and collect those that have no operator."""
        graph, program = self.recipe.graph, self.recipe.program
        for name in graph.inputs:
            if name not in graph.initializers:
                self._open(name)
        for node in graph.nodes:
            if node.name in self.done or program.constant(node.outputs[0]) is not None:
                continue
            try:
                handler = handlers.get(node.op_type)
                if handler is None or node.domain not in ("", ONNX_DOMAIN):
                    raise Inexpressible(f"{node.op_type} is not written", instead=KNOWN)  # noqa: TRY301
                handler(self, node)
            except Inexpressible as why:
                self._refuse(node, why)
        if not self.refused:
            self.outputs = [self.held[name, self.made[name]] for name in graph.outputs]

    def packed(self) -> bytes:
        """The file."""
        return self.file.packed(self.inputs, self.outputs, self.recipe.name)

    def shape(self, value: str) -> tuple[int, ...]:
        """A value's shape in the file; a batch that is open is 1.

        Raises:
            Inexpressible: another size is open.
        """
        known = self.recipe.graph.types.get(value)
        sizes = None if known is None else known.shape
        if sizes is None:
            raise Inexpressible("its shape is unknown", instead="a model with shapes is written")
        found = [
            size if isinstance(size, int) else 1 if axis == 0 else -1
            for axis, size in enumerate(sizes)
        ]
        if -1 in found:
            raise Inexpressible(
                f"{value} has the open size {sizes[found.index(-1)]}, and LiteRT's are fixed",
                instead="a model whose batch alone is open is written",
            )
        return tuple(found[axis] for axis in LAST) if len(found) == 4 else tuple(found)

    def write(self, value: str, grid: Grid | None) -> int:
        """The tensor that a value is made in: codes of a grid, or float32."""
        kind = "FLOAT32" if grid is None else "INT8"
        tensor = self.file.tensor(value, self.shape(value), kind, grid=grid)
        self.held[value, grid], self.made[value] = tensor, grid
        return tensor

    def read(self, value: str, grid: Grid | None) -> int:
        """A value as codes of a grid, or in float32."""
        if (value, grid) in self.held:
            return self.held[value, grid]
        constant = self.recipe.program.constant(value)
        if constant is not None:
            return self._constant(value, constant.float().numpy())
        kind = "FLOAT32" if grid is None else "INT8"
        found = self.file.tensor(f"{value}_{kind.lower()}", self.shape(value), kind, grid=grid)
        source = self.held[value, self.made[value]]
        if grid is None:
            self.file.operator("DEQUANTIZE", [source], [found], version=2)
        else:
            self._quantize(source, found)
        self.held[value, grid] = found
        return found

    def operand(self, node: Node, index: int = 0) -> int:
        """An operand in float32, as the emulator rounds it."""
        grid, value = self.places.read(node, index), node.inputs[index]
        if grid is None or self.made.get(value) == grid:
            return self.read(value, None)
        codes = self.read(value, grid)
        found = self.file.tensor(f"{value}_rounded", self.file.shape(codes), "FLOAT32")
        self.file.operator("DEQUANTIZE", [codes], [found], version=2)
        return found

    def result(self, node: Node, write: Callable[[int], None], grid: Grid | None = None) -> int:
        """The result of an operator on a grid, or in float32; rounded behind it as asked.

        Args:
            node: whose first output it is.
            write: makes the operator that writes a tensor of that number.
            grid: of what the operator writes.

        Returns:
            The tensor that the operator itself writes.
        """
        value, stored = node.outputs[0], self.places.written(node)
        if stored in (None, grid):
            output = self.write(value, grid)
            write(output)
            return output
        kind = "FLOAT32" if grid is None else "INT8"
        output = self.file.tensor(f"{value}_{kind.lower()}", self.shape(value), kind, grid=grid)
        write(output)
        self._quantize(output, self.write(value, stored))
        return output

    def pad(self, source: int, pads: Sequence[tuple[int, int]]) -> int:
        """Zeros around; those of codes are their grid's."""
        old = self.file.shape(source)
        shape = [size + before + after for size, (before, after) in zip(old, pads, strict=True)]
        found = self.file.like(source, "padded", shape)
        self.padded(source, found, pads)
        return found

    def padded(self, source: int, found: int, pads: Sequence[tuple[int, int]]) -> None:
        """Zeros around a tensor in another one."""
        widths = self.file.constant("pads", np.array(pads, np.int32), "INT32")
        self.file.operator("PAD", [source, widths], [found], version=2, options="PadOptions")

    def _quantize(self, source: int, found: int) -> None:
        self.file.operator("QUANTIZE", [source], [found], version=2)
        if self.file.is_code(source):
            self.combined.append(Combined(kind="same", inputs=(source,), output=found))

    def _open(self, name: str) -> None:
        try:
            self.inputs.append(self.write(name, self.places.wanted(name)))
        except Inexpressible as why:
            self.refused.append(Refusal(reason=f"input {name}: {why.reason}", instead=why.instead))
            self._pretend(name)

    def _refuse(self, node: Node, why: Inexpressible) -> None:
        self.refused.append(Refusal(reason=f"{node.name}: {why.reason}", instead=why.instead))
        for value in node.outputs:
            self._pretend(value)

    def _pretend(self, value: str) -> None:
        """A tensor that readers of a refused value find, so that theirs are seen, too."""
        self.made[value] = None
        self.held[value, None] = self.file.tensor(value, (1, 1, 1, 1), "FLOAT32")

    def _constant(self, name: str, values: Array) -> int:
        values = values.transpose(LAST) if values.ndim == 4 else values
        return self.file.constant(name, values.astype(np.float32), "FLOAT32")
