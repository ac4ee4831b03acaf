"""Nodes that multiply an activation by one weight, read as rows times a matrix.

What is learned about a weight (a rounding, the mean of what it multiplies) is learned on this
form, so that convolutions and matrix products are one case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.window import Window, window
from dse.graph.ir.graph import Graph, Node
from dse.graph.ir.operators import RECURRENT

RANKS = {"Conv": (3, 4), "Gemm": (2,), "MatMul": (2,)}
"""Operators with the ranks of weights that they take as rows times a matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One weight of a node, and what it multiplies there.

    The hidden state that a recurrent weight multiplies is no value of the graph; its stand-in is
    the node's first output, which is the same states one step later. (A GRU that resets before
    the product multiplies a part of its weight by what the reset leaves of them.)
    """

    node: Node
    weight_shape: tuple[int, ...]
    groups: int = 1
    """Independent products side by side: groups of a convolution, directions of a recurrence."""
    of_hidden: bool = False
    """The weight is the recurrent one."""
    bias: str | None = None
    """Site key of a constant bias that the node adds to its outputs as it is."""
    has_bias: bool = False
    """Something constant is added to the outputs, by the node or right behind it."""

    @property
    def activation(self) -> str:
        """Site key of the operand that meets the weight, or of its stand-in."""
        return f"{self.node.name}/{'out0' if self.of_hidden else 'in0'}"

    @property
    def operand(self) -> tuple[object, ...]:
        """Equal for products that multiply the same rows."""
        attributes = self.node.attributes
        kept = ("auto_pad", "dilations", "pads", "strides", "transA")
        kernel = self.weight_shape[2:] if self.is_convolution else ()
        return (
            self.node.outputs[0] if self.of_hidden else self.node.inputs[0],
            self.groups, kernel, self.is_convolution,
            *(repr(attributes.get(name)) for name in kept),
        )  # fmt: skip

    @property
    def is_convolution(self) -> bool:
        """Whether rows are patches."""
        return self.node.op_type == "Conv"

    @property
    def is_recurrent(self) -> bool:
        """Whether the node unrolls over time."""
        return self.node.op_type in RECURRENT

    @property
    def depth(self) -> int:
        """Length of a row."""
        if self.is_convolution:
            return math.prod(self.weight_shape[1:])
        if self.is_recurrent:
            return self.weight_shape[2]
        return self.weight_shape[1 if self._is_transposed else 0]

    @property
    def taps(self) -> int:
        """Positions of a kernel: how often each channel stands in a row."""
        return math.prod(self.weight_shape[2:]) if self.is_convolution else 1

    @property
    def channels(self) -> int:
        """Input channels of all groups."""
        return self.groups * self.depth // self.taps

    @property
    def outputs(self) -> int:
        """Output channels of all groups."""
        return math.prod(self.weight_shape) // self.depth

    def rows(self, x: Tensor, *, most: int | None = None) -> Tensor:
        """The activation as (groups, rows, depth).

        Of a convolution over more than `most` places of windows, those of a coarser lattice.
        """
        if self.is_convolution:
            return self._patches(x, most)
        if self.of_hidden:
            directions = 2 if self.node.attributes.get("layout") else 1
            return x.movedim(directions, 0).reshape(self.groups, -1, self.depth)
        if self.is_recurrent:
            return x.reshape(1, -1, self.depth).expand(self.groups, -1, -1)
        x = x.T if self.node.attributes.get("transA") else x
        return x.reshape(1, -1, x.shape[-1])

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as (groups, outputs of a group, depth)."""
        if self.is_convolution:
            return weight.reshape(self.groups, -1, self.depth)
        if self.is_recurrent:
            return weight
        return (weight if self._is_transposed else weight.T)[None]

    def weight(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`."""
        if self.is_convolution:
            return matrix.reshape(self.weight_shape)
        if self.is_recurrent:
            return matrix
        return (matrix[0] if self._is_transposed else matrix[0].T).contiguous()

    def along_outputs(self, values: Tensor) -> Tensor:
        """Values by output channel in a shape that broadcasts over the node's output."""
        spatial = len(self.weight_shape) - 2 if self.is_convolution else 0
        return values.reshape(-1, *[1] * spatial)

    @property
    def scale(self) -> float:
        """The factor of the product."""
        return float(cast("float", self.node.attributes.get("alpha", 1.0)))

    @property
    def _is_transposed(self) -> bool:
        return bool(self.node.attributes.get("transB"))

    def _patches(self, x: Tensor, most: int | None) -> Tensor:
        if x.dim() == 3:  # one axis is two, the first of them trivial
            x = x[:, :, None]
        given, rank = self.node.attributes, len(self.weight_shape) - 2
        frame = window(
            x.shape[-rank:], self.weight_shape[2:],
            strides=_integers(given, "strides"), dilations=_integers(given, "dilations"),
            pads=_integers(given, "pads"), auto_pad=str(given.get("auto_pad", "NOTSET")),
        )  # fmt: skip
        padded = functional.pad(x, frame.torch_pads)
        if most is None:
            return self._windows(padded, frame, 1)
        places = math.prod(_places(padded, frame))
        step = max(int((len(x) * places / most) ** (1 / rank)), 1)
        # Each part of the samples on a lattice of its own, so that borders have their share.
        parts = enumerate(torch.tensor_split(padded, min(step, len(x))))
        rows = [self._windows(_from(part, frame, step, n), frame, step) for n, part in parts]
        return torch.cat(rows, dim=1)

    def _windows(self, padded: Tensor, frame: Window, step: int) -> Tensor:
        """(groups, rows, depth) of every `step`-th window along each axis."""
        lead = (1,) * (2 - len(frame.kernel))
        patches = functional.unfold(
            padded,
            (*lead, *frame.kernel),
            dilation=(*lead, *frame.dilations),
            stride=(*lead, *(step * stride for stride in frame.strides)),
        )
        split = patches.reshape(len(padded), self.groups, self.depth, -1)
        return split.permute(1, 0, 3, 2).reshape(self.groups, -1, self.depth)


def _places(padded: Tensor, frame: Window) -> list[int]:
    """Places of windows along each axis."""
    sizes = padded.shape[-len(frame.kernel) :]
    return [
        (size - span) // stride + 1
        for size, span, stride in zip(sizes, frame.extent, frame.strides, strict=True)
    ]


def _from(padded: Tensor, frame: Window, step: int, number: int) -> Tensor:
    """The input from the first window of the lattice with a number on."""
    rank = len(frame.kernel)
    for axis, (count, stride) in enumerate(
        zip(_places(padded, frame), frame.strides, strict=True)
    ):
        # Another order along each axis, so that numbers meet in many ways.
        start = min((number * (axis + 1) + axis) % step, count - 1) * stride
        dim = padded.dim() - rank + axis
        padded = padded.narrow(dim, start, padded.shape[dim] - start)
    return padded


def products_of(graph: Graph, weights: Mapping[str, Sequence[int]]) -> dict[str, Product]:
    """The products of weight sites (key: shape of the weight), by site key.

    Convolutions over one or two axes, matrix products with the weight on the right and both
    weights of recurrences; stacks of matrices have no such form and are left out.
    """
    nodes = {node.name: node for node in graph.nodes}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for value in node.reads:
            readers.setdefault(value, []).append(node)
    found: dict[str, Product] = {}
    for key, shape in weights.items():
        name, _, operand = key.rpartition("/")
        node = nodes[name]
        if node.domain == "" and node.op_type in RECURRENT:
            if product := _recurrent(node, tuple(shape), operand):
                found[key] = product
        elif operand == "in1" and node.domain == "" and len(shape) in RANKS.get(node.op_type, ()):
            behind = readers.get(node.outputs[0], [])
            found[key] = _product(graph, node, tuple(shape), behind)
    return found


def _product(graph: Graph, node: Node, shape: tuple[int, ...], readers: Sequence[Node]) -> Product:
    own = len(node.inputs) > 2 and node.inputs[2] in graph.initializers
    plain = own and node.attributes.get("beta", 1.0) == 1.0
    shifted = (
        len(readers) == 1
        and readers[0].op_type == "Add"
        and any(value in graph.initializers for value in readers[0].inputs)
    )
    return Product(
        node=node,
        weight_shape=shape,
        groups=int(cast("int", node.attributes.get("group", 1))),
        bias=f"{node.name}/in2" if plain else None,
        has_bias=own or shifted,
    )


def _recurrent(node: Node, shape: tuple[int, ...], operand: str) -> Product | None:
    """A weight of a recurrence; None for its biases, and where no output shows its states."""
    if operand == "in1":
        return Product(node=node, weight_shape=shape, groups=shape[0])
    if operand == "in2" and node.outputs and node.outputs[0]:
        return Product(node=node, weight_shape=shape, groups=shape[0], of_hidden=True)
    return None


def _integers(attributes: Mapping[str, object], name: str) -> Sequence[int] | None:
    return cast("Sequence[int] | None", attributes.get(name))


def zeros_for(product: Product, device: torch.device, *, second: bool) -> Tensor:
    """Starts of sums over rows (or over their outer products)."""
    shape = (product.groups, product.depth, *([product.depth] if second else []))
    return torch.zeros(shape, device=device, dtype=torch.float32 if second else torch.float64)
