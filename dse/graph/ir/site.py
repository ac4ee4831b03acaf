"""Sites: the operands that can take a number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dse.graph.ir.graph import Dim

Role = Literal[
    "weight", "bias", "activation", "output", "q", "k_cache", "v_cache", "probabilities",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One operand of one node."""

    node: str
    operand: str
    """`in0`, `in1`, ..., `out0`, ..."""
    value: str
    role: Role
    shape: tuple[Dim, ...]
    contraction_axes: tuple[int, ...]
    """The axes that the node sums over, counted from the front; empty where it sums over none."""

    @property
    def key(self) -> str:
        """`<node>/<operand>`."""
        return f"{self.node}/{self.operand}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Nodes that a runtime executes as one kernel: the decision variable of a search."""

    name: str
    """Unique and readable: `blocks.3/gate_up`, `head`, `conv_7`."""
    kind: str
    """The `hwmodels.work.work.OpKind` of its main op."""
    role: str
    """`qkv`, `o`, `gate_up`, `down`, `fc1`, `fc2`, `head`, `conv`, `attention`, `norm`, ..."""
    block: int | None
    """Index of the repeated block that it belongs to, counted from the input."""
    relative_depth: float
    """0 at the input, 1 at the output: how cost-model regions find their counterpart."""
    nodes: tuple[str, ...]
    sites: tuple[Site, ...]
    """Sites of the contracting nodes: weights, activations, attention operands."""
