"""Roles: the part a tensor plays in its product, and the part a region plays in its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from hwmodels.work.work import OperandName

Pass = Literal["fprop", "dgrad", "wgrad", "update"]
"""The three products that training makes of one layer, and the step of the optimizer.

Of y = x w: `fprop` computes y, `dgrad` dx = dy w', `wgrad` dw = x' dy. Inference is `fprop` alone.
"""
SchemePart = Literal["weight", "input", "other"]
Split = Literal["columns", "rows", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The part that a tensor plays: what decides which formats suit it.

    Laws, which `tests/contracts/test_roles.py` holds every entry to:

    1. It is read or written by one pass at least.
    2. In one pass no two roles are the same operand of the product, `other` excepted, so that an
       operand and a pass name one role.
    3. The candidates are formats of the catalogue, no one twice; the first has 16 bits or more
       and is what the tensor keeps where nobody chooses.
    4. What a space can choose (`is_searched`) is multiplied in `fprop`.
    """

    name: str
    label: str
    """In words, for messages and tables."""
    operands: Mapping[Pass, OperandName]
    """The operand of the product by pass; `other` for what is kept or sent beside a product."""
    candidates: tuple[str, ...]
    """Formats to begin with, widest first."""
    scheme: SchemePart = "other"
    """The part of a scheme (`w4a8_fp8`) that speaks of it."""
    is_constant: bool = False
    """It is known before any data is seen, so it is its own calibration."""
    is_searched: bool = False
    """A space file may name its format."""


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        role.name: role
        for role in (
            Role(
                name="weight", label="weight", scheme="weight", is_constant=True, is_searched=True,
                operands={"fprop": "weight", "dgrad": "weight"},
                candidates=("bf16", "e4m3_channel", "int4_g128", "nvfp4", "mxfp4"),
            ),
            Role(
                name="bias", label="bias", is_constant=True,
                operands={"fprop": "bias"}, candidates=("bf16",),
            ),
            Role(
                name="activation", label="activation", scheme="input", is_searched=True,
                operands={"fprop": "input", "wgrad": "input"},
                candidates=("bf16", "e4m3_token", "nvfp4", "mxfp4"),
            ),
            Role(
                name="output", label="output",
                operands={"fprop": "output"}, candidates=("bf16",),
            ),
            Role(
                name="stored", label="tensor between products", scheme="input",
                # Where a runtime stores all tensors in one format, the reader's: it has no other.
                operands={"fprop": "other"}, candidates=("bf16", "int8"),
            ),
            Role(
                name="q", label="query", is_searched=True,
                operands={"fprop": "q"}, candidates=("bf16", "e4m3_tensor"),
            ),
            Role(
                name="k_cache", label="key", is_searched=True,
                operands={"fprop": "k"}, candidates=("bf16", "e4m3_tensor", "int8_token"),
            ),
            Role(
                name="v_cache", label="value", is_searched=True,
                operands={"fprop": "v"}, candidates=("bf16", "e4m3_tensor", "int8_token"),
            ),
            Role(
                name="probabilities", label="attention probability", is_searched=True,
                operands={"fprop": "probabilities"}, candidates=("bf16", "e4m3_tensor"),
            ),
            Role(
                name="saved_activation", label="activation saved for the backward pass",
                # COAT, arXiv 2410.19313, section 5: kept apart from what the product multiplies.
                operands={"fprop": "other", "wgrad": "other"},
                candidates=("bf16", "mxfp8", "e4m3_tensor"),
            ),
            Role(
                name="activation_gradient", label="activation gradient",
                operands={"dgrad": "input", "wgrad": "weight"},
                candidates=("bf16", "e5m2_tensor", "nvfp4", "mxfp4"),
            ),
            Role(
                name="weight_gradient", label="weight gradient",
                # FP8-LM, arXiv 2310.18313, section 2.1: gradients in FP8.
                operands={"wgrad": "output", "update": "input"},
                candidates=("fp32", "bf16", "e4m3_tensor"),
            ),
            Role(
                name="master_weight", label="master weight",
                # FP8-LM, section 2.2: FP16 with a scale is the narrowest that keeps the loss.
                operands={"update": "weight"}, candidates=("fp32", "bf16", "fp16"),
            ),
            Role(
                name="optimizer_m", label="first moment of the optimizer",
                # Dettmers et al., arXiv 2110.02861, section 2: signed and unsigned dynamic codes.
                operands={"update": "other"},
                candidates=("fp32", "bf16", "dynamic8_g2048", "e4m3_tensor"),
            ),
            Role(
                name="optimizer_v", label="second moment of the optimizer",
                operands={"update": "other"},
                candidates=("fp32", "bf16", "udynamic8_g2048"),
            ),
            Role(
                name="accumulator", label="accumulator of a product",
                # A space names it beside a choice (`w8a8_int8@int16`), not as an operand's format.
                operands={"fprop": "sum", "dgrad": "sum", "wgrad": "sum"},
                candidates=("fp32", "fp16"),
            ),
            Role(
                name="communication_up", label="gradient or weight sent to be averaged",
                operands={"wgrad": "other"}, candidates=("fp32", "bf16", "e4m3_tensor"),
            ),
            Role(
                name="communication_down", label="weight sent to a worker",
                operands={"fprop": "other"}, candidates=("bf16", "e4m3_tensor"),
            ),
        )
    }
)  # fmt: skip
"""Every role by name. What is new in training is an entry here, not another class."""
SEARCHED_ROLES = tuple(name for name, role in ROLES.items() if role.is_searched)
"""The roles whose formats a space can choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRole:
    """The part that a region plays in its network, where anything depends on it."""

    name: str
    split: Split = "none"
    """The part of the weight that one of several GPUs keeps: outputs or inputs. A projection to
    queries, keys or values is split by heads."""
    is_feed_forward: bool = False
    """It belongs to the block of the attention before it."""
    is_kept: bool = False
    """A scheme leaves it in 16 bits."""
    routed: str = ""
    """The role of the same product where a router chose its rows."""


REGION_ROLES: Mapping[str, RegionRole] = MappingProxyType(
    {
        role.name: role
        for role in (
            RegionRole(name="o", split="rows"),
            RegionRole(
                name="gate_up", split="columns", is_feed_forward=True, routed="experts_gate_up"
            ),
            RegionRole(name="gate", split="columns", is_feed_forward=True),
            RegionRole(name="up", split="columns", is_feed_forward=True),
            RegionRole(name="down", split="rows", is_feed_forward=True, routed="experts_down"),
            RegionRole(name="fc1", split="columns", is_feed_forward=True, routed="experts_up"),
            RegionRole(name="fc2", split="rows", is_feed_forward=True, routed="experts_down"),
            RegionRole(name="linear", is_feed_forward=True),
            RegionRole(name="router", is_feed_forward=True),
            RegionRole(name="experts_gate_up", split="columns", is_feed_forward=True),
            RegionRole(name="experts_up", split="columns", is_feed_forward=True),
            RegionRole(name="experts_down", split="rows", is_feed_forward=True),
            RegionRole(name="lora_a", is_feed_forward=True),
            RegionRole(name="lora_b", is_feed_forward=True),
            RegionRole(name="head", split="columns", is_kept=True),
            RegionRole(name="embedding", is_kept=True),
        )
    }
)
"""The regions' roles that are treated in a way of their own; all others are plain."""


def region_role(name: str) -> RegionRole:
    """The entry of a region's role; a plain one where the table has none."""
    return REGION_ROLES.get(name) or RegionRole(name=name)
