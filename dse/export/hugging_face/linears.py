"""The linear layers of a traced Hugging Face folder, by the names of their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dse.execute.weights.product import Product, products_of
from dse.export.base import Recipe
from dse.graph.ir.graph import Graph, Node
from dse.imports.checkpoint import Checkpoint

PRODUCTS = ("MatMul", "Gemm")
ON_THE_WAY = ("Cast", "Transpose", "Identity")
"""Operators between a stored tensor and the product that reads it."""
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
    """One `torch.nn.Linear`: its weight is stored as (outputs, depth)."""

    module: str
    """Its name in the network and, behind `.weight`, in the checkpoint."""
    product: Product
    tied: bool = False
    """Its weight is another module's tensor."""

    @property
    def weight_key(self) -> str:
        """The site of the weight."""
        return f"{self.product.node.name}/in1"

    @property
    def input_key(self) -> str:
        """The site of the activation that meets it."""
        return f"{self.product.node.name}/in0"

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return f"{self.module}.weight"

    @property
    def bias(self) -> str:
        """Name of the bias, whether there is one or not."""
        return f"{self.module}.bias"


def linears_of(recipe: Recipe, checkpoint: Checkpoint) -> dict[str, Linear]:
    """The linear layers of a model by the site of their weight.

    A product counts whose weight is one stored tensor, transposed or not, that torch multiplies as
    a Linear does; transposed layers (GPT-2's), stacks of experts and convolutions are none.
    """
    graph = recipe.graph
    made = {value: node for node in graph.nodes for value in node.outputs}
    shapes = {
        f"{node.name}/in1": tuple(weight.shape)
        for node in graph.nodes
        if node.op_type in PRODUCTS
        and node.domain == ""
        and (weight := recipe.program.constant(node.inputs[1])) is not None
    }
    found: dict[str, Linear] = {}
    for key, product in products_of(graph, shapes).items():
        stored = _stored(graph, made, product.node)
        if stored is None or stored.flipped == bool(product.node.attributes.get("transB")):
            continue
        if stored.name not in checkpoint.tensors or product.scale != 1.0:
            continue
        own = stored.name == f"{product.node.name}.weight"
        if own or _is_looked_up(graph, made, stored.name):
            found[key] = Linear(module=product.node.name, product=product, tied=not own)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The tensor behind an operand."""

    name: str
    flipped: bool
    """An odd number of transpositions stands between."""


def _stored(graph: Graph, made: Mapping[str, Node], node: Node) -> _Stored | None:
    value, flipped = node.inputs[1], False
    while value not in graph.initializers:
        node = made[value]
        if node.op_type not in ON_THE_WAY:
            return None
        flipped ^= node.op_type == "Transpose"
        value = node.inputs[0]
    return _Stored(name=value, flipped=flipped)


def _is_looked_up(graph: Graph, made: Mapping[str, Node], name: str) -> bool:
    """Whether a tensor is an embedding, too."""
    tables = (node.inputs[0] for node in graph.nodes if node.op_type == "Gather")
    return any(name in _behind(made, value) for value in tables)


def _behind(made: Mapping[str, Node], value: str) -> Iterator[str]:
    yield value
    while value in made and made[value].op_type in ON_THE_WAY:
        value = made[value].inputs[0]
        yield value


def siblings_of(linears: Sequence[Linear]) -> list[tuple[Linear, ...]]:
    """The layers that runtimes load as one, several together each."""
    places: dict[tuple[str, int], list[Linear]] = {}
    for linear in linears:
        parent, _, name = linear.module.rpartition(".")
        for number, names in enumerate(FUSED):
            if name in names:
                places.setdefault((parent, number), []).append(linear)
    return [tuple(group) for group in places.values() if len(group) > 1]
