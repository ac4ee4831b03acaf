"""The linear layers of a traced Hugging Face folder, by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from dse.export.base import Recipe
from dse.graph.ir.graph import Graph, Node
from dse.imports.checkpoint import Checkpoint

PRODUCTS = ("MatMul", "Gemm")
ON_THE_WAY = ("Cast", "Transpose", "Identity")
"""Operators between a stored tensor and the product that reads it."""
EXPERT = re.compile(r"(?P<experts>.+\.experts)\.(?P<number>\d+)\.(?P<name>[^.]+)")
"""The module of one matrix of a mixture of experts in a checkpoint."""
FUSED: tuple[tuple[str, ...], ...] = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"),
    ("in_proj_qkvz", "in_proj_ba"),
)
"""Layers that vLLM and TensorRT-LLM load as one (`packed_modules_mapping`, `stacked_params`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A matrix stored as (outputs, depth): of a `torch.nn.Linear`, or of an expert."""

    module: str
    """Its name in the network and, behind `.weight`, in the checkpoint."""
    node: Node
    """The product that multiplies it, alone or in a stack."""
    stack: Stack | None = None
    """Its place in a stack of experts."""
    tied: bool = False
    """Its weight is another module's tensor."""

    @property
    def weight_key(self) -> str:
        """The site of the weight."""
        return f"{self.node.name}/in1"

    @property
    def input_key(self) -> str:
        """The site of the activation that meets it."""
        return f"{self.node.name}/in0"

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return f"{self.module}.weight"

    @property
    def bias(self) -> str:
        """Name of the bias, whether there is one or not."""
        return f"{self.module}.bias"

    def matrix(self, weight: Tensor) -> Tensor:
        """The matrix in what stands at the weight's site: (outputs, depth)."""
        if self.stack is not None:
            return weight[self.stack.expert].T[self.stack.first : self.stack.last]
        return weight if self.node.attributes.get("transB") else weight.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The place of a matrix in a stack (experts, depth, outputs)."""

    expert: int
    first: int
    """The first of its outputs among those of the expert."""
    last: int
    """Behind its last one."""
    outputs: int
    """Of an expert, all of its matrices side by side."""


def linears_of(recipe: Recipe, checkpoint: Checkpoint) -> dict[str, Linear]:
    """The linear layers of a model by module.

    A product counts whose weight is one stored tensor, transposed or not, that torch multiplies as
    a Linear does, or a stack of such tensors, an expert each; transposed layers (GPT-2's), stacks
    that are stored as they are and convolutions are none.
    """
    graph = recipe.graph
    found: dict[str, Linear] = {}
    for node in graph.nodes:
        if node.op_type in PRODUCTS and node.domain == "":
            for linear in _Reader(recipe=recipe, checkpoint=checkpoint).linears(node):
                found[linear.module] = linear
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A stored tensor as a part of an operand."""

    name: str
    rows: int
    expert: int | None = None
    first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Finds the tensors behind the second operand of a product."""

    recipe: Recipe
    checkpoint: Checkpoint

    def linears(self, node: Node) -> Iterator[Linear]:
        """The matrices of a product; none where its weight is no Linear's."""
        graph = self.recipe.graph
        value, flips = self._behind(node.inputs[1])
        as_linear = flips % 2 != bool(node.attributes.get("transB"))
        pieces = self._pieces(value) if node.attributes.get("alpha", 1.0) == 1.0 else None
        if not as_linear or not pieces:
            return
        for piece in pieces:
            module = piece.name.removesuffix(".weight")
            if piece.expert is not None and EXPERT.fullmatch(module):
                outputs = sum(one.rows for one in pieces if one.expert == piece.expert)
                last = piece.first + piece.rows
                stack = Stack(expert=piece.expert, first=piece.first, last=last, outputs=outputs)
                yield Linear(module=module, node=node, stack=stack)
            elif piece.expert is None and len(pieces) == 1:
                own = module == node.name
                if own or _is_looked_up(graph, piece.name):
                    yield Linear(module=node.name, node=node, tied=not own)

    def _behind(self, value: str) -> tuple[str, int]:
        """The value behind casts and transpositions, and the number of these."""
        made, flips = self.recipe.graph.producer, 0
        while value in made and made[value].op_type in ON_THE_WAY:
            flips += made[value].op_type == "Transpose"
            value = made[value].inputs[0]
        return value, flips

    def _pieces(self, value: str) -> list[_Piece] | None:
        """The stored tensors that a value is made of; None where it is made otherwise."""
        stored = self.checkpoint.tensors.get(value)
        if value in self.recipe.graph.initializers:
            plain = stored is not None and len(stored.shape) == 2
            return [_Piece(name=value, rows=stored.shape[0])] if plain and stored else None
        node = self.recipe.graph.producer.get(value)
        if node is not None and node.op_type == "Unsqueeze":
            return self._one_expert(node)
        if node is not None and node.op_type == "Concat":
            return self._joined(node)
        return None

    def _one_expert(self, node: Node) -> list[_Piece] | None:
        axes = self.recipe.program.constant(node.inputs[1])
        inner = self._pieces(self._behind(node.inputs[0])[0])
        if axes is None or axes.tolist() != [0] or not inner or len(inner) > 1:
            return None
        return [replace(inner[0], expert=0)]

    def _joined(self, node: Node) -> list[_Piece] | None:
        """Stacks one after the other (axis 0), or their outputs side by side (axis 1)."""
        found: list[_Piece] = []
        axis, expert, first = node.attributes.get("axis"), 0, 0
        for value in node.inputs:
            inner = self._pieces(self._behind(value)[0])
            if not inner or axis not in (0, 1) or any(one.expert is None for one in inner):
                return None
            for one in inner:
                assert one.expert is not None, "checked"
                place = one.expert + (expert if axis == 0 else 0)
                found.append(
                    replace(one, expert=place, first=one.first + (first if axis == 1 else 0))
                )
            expert = 1 + max(one.expert or 0 for one in inner) + expert
            first += sum(one.rows for one in inner if one.expert == 0)
        return found


def _is_looked_up(graph: Graph, name: str) -> bool:
    """Whether a tensor is an embedding, too."""
    tables = (node.inputs[0] for node in graph.nodes if node.op_type == "Gather")
    return any(name in _chain(graph, value) for value in tables)


def _chain(graph: Graph, value: str) -> Iterator[str]:
    yield value
    while value in graph.producer and graph.producer[value].op_type in ON_THE_WAY:
        value = graph.producer[value].inputs[0]
        yield value


def siblings_of(linears: Iterable[Linear]) -> list[tuple[Linear, ...]]:
    """The layers that runtimes load as one, several together each."""
    places: dict[tuple[str, int], list[Linear]] = {}
    for linear in linears:
        parent, _, name = linear.module.rpartition(".")
        for number, names in enumerate(FUSED):
            if name in names:
                places.setdefault((parent, number), []).append(linear)
    return [tuple(group) for group in places.values() if len(group) > 1]


def mixtures_of(linears: Iterable[Linear]) -> dict[str, list[Linear]]:
    """The matrices of mixtures of experts, by the module that has them all.

    Runtimes run the products of all experts as one kernel: theirs is one format.
    """
    found: dict[str, list[Linear]] = {}
    for linear in linears:
        if match := EXPERT.fullmatch(linear.module):
            found.setdefault(match["experts"], []).append(linear)
    return found
