"""Sites: the operands that can take a number format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dse.graph.ir.graph import Dim
from hwmodels.work.role import Pass

SUM = "sum"
"""The place of the sum of a product among a node's operands: `<node>/sum`."""
SUM_ROLE = "accumulator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One operand of one node."""

    node: str
    operand: str
    """`in0`, `in1`, ..., `out0`, ..., or `sum`."""
    value: str
    role: str
    """A name of `hwmodels.work.role.ROLES`."""
    shape: tuple[Dim, ...]
    contraction_axes: tuple[int, ...]
    """The axes that the node sums over, counted from the front; empty where it sums over none."""
    pass_: Pass = "fprop"
    """The pass whose product has the operand; inference has `fprop` alone."""

    @property
    def key(self) -> str:
        """`<node>/<operand>`; in another pass than `fprop` that and `@<pass>`."""
        key = f"{self.node}/{self.operand}"
        return key if self.pass_ == "fprop" else f"{key}@{self.pass_}"

    @property
    def summed(self) -> Site:
        """The sum behind a result of a product, where an accumulator may be named."""
        return replace(self, operand=SUM, role=SUM_ROLE, contraction_axes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Nodes that a runtime executes as one kernel: the decision variable of a search."""

    name: str
    """Unique and readable: `blocks.3/gate_up`, `head`, `conv_7`."""
    kind: str
    """The `hwmodels.work.work.OpKind` of its main op."""
    role: str
    """`qkv`, `o`, `gate_up`, `down`, `fc1`, `fc2`, `head`, `conv`, `attention`, `norm`, ...;
    what depends on it is in `hwmodels.work.role.REGION_ROLES`."""
    block: int | None
    """Index of the repeated block that it belongs to, counted from the input."""
    relative_depth: float
    """0 at the input, 1 at the output: how cost-model regions find their counterpart."""
    nodes: tuple[str, ...]
    sites: tuple[Site, ...]
    """Sites of the contracting nodes: weights, activations, attention operands."""
    is_given: bool = False
    """Whether its products come quantized: what the model's author chose stays, and no search or
    uniform format names their sites."""
    twin: str = ""
    """The first region that multiplies the same weights in another branch of the same If: one of
    them runs, and their weights are stored once."""

    @property
    def sums(self) -> tuple[Site, ...]:
        """The sums of its products."""
        return sums_of(self.sites)


def sums_of(sites: Iterable[Site]) -> tuple[Site, ...]:
    """The sums behind results of contracting nodes."""
    return tuple(site.summed for site in sites if site.role == "output")
