"""Roles of training by pass, and the format of each at a site of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from dse.training.method import Formats, Method, Operand, SiteKind, Sites, operand_of
from hwmodels.work.role import ROLES

FACTORS = ("activation", "weight", "activation_gradient", "saved_activation")
"""Roles that `*` stands for: what a linear layer multiplies or keeps to multiply."""
MULTIPLIED: Mapping[str, tuple[str, str]] = {
    "fprop": ("activation", "weight"),
    "dgrad": ("activation_gradient", "weight"),
    "wgrad": ("activation_gradient", "activation"),
}
"""Factors of the three products of a linear layer, by pass."""
ATTENTION = ("q", "k_cache", "v_cache", "probabilities")
"""Roles of attention's own products."""
OPTIMIZER = ("master_weight", "optimizer_m", "optimizer_v")
OF_A_STEP = ("weight_gradient", "accumulator", "output")
SENT = {"communication_up": "wgrad", "communication_down": "fprop"}
"""Roles of what clients and their server send each other, with the pass of each."""
TRAINED = (*FACTORS, *OF_A_STEP, *OPTIMIZER, *ATTENTION, *SENT)
"""Roles that a method can name."""
_NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A product of a model: the module that computes it."""

    name: str
    kind: SiteKind

    @property
    def block(self) -> int | None:
        """The first number in the name; None where it has none."""
        match = _NUMBER.search(self.name)
        return int(match[1]) if match else None


def block_count(names: Sequence[str]) -> int:
    """Blocks of a model whose modules have these names: one more than the largest number."""
    numbers = [Site(name=name, kind="linear").block for name in names]
    return max((number + 1 for number in numbers if number is not None), default=0)


def passes_of(role: str) -> tuple[str, ...]:
    """The passes that a role has a part in."""
    return tuple(ROLES[role].operands)


def keys_of(role: str) -> Iterator[str]:
    """Every way to write a role: alone, and narrowed to a pass."""
    yield role
    yield from (f"{role}@{name}" for name in passes_of(role))


class SiteFormats:
    """The operands of one site (or parameter): what the method and its rules say of it."""

    def __init__(self, layers: list[Formats]) -> None:
        """`layers` of entries, later ones count first."""
        self._layers = layers

    def named(self, role: str, pass_: str) -> Operand | None:
        """The operand that the method names; None where it names none."""
        keys = [f"{role}@{pass_}", role]
        keys += ["*"] if role in (*FACTORS, *ATTENTION) else []
        for layer in reversed(self._layers):
            for key in keys:
                if key in layer:
                    return operand_of(layer[key])
        return None

    def operand(self, role: str, pass_: str) -> Operand:
        """The operand, or what the tensor keeps where nobody chooses."""
        return self.named(role, pass_) or DEFAULTS[role]


DEFAULTS: Mapping[str, Operand] = MappingProxyType(
    {name: Operand(format=ROLES[name].candidates[0]) for name in TRAINED}
)


UNSTAGED: Formats = MappingProxyType({})
"""The stage of a method without a schedule."""


def formats_at(
    method: Method, site: Site, blocks: int, *, stage: Formats = UNSTAGED
) -> SiteFormats:
    """The formats at a product of a model with so many blocks.

    Attention takes from the method and its stage only its own roles: what is said of layers'
    factors means layers, as in the sources of methods.
    """
    general = [method.roles, stage]
    if site.kind == "attention":
        general = [
            {key: value for key, value in one.items() if _role(key) in ATTENTION}
            for one in general
        ]
    found = [rule.roles for rule in method.rules if matches(rule.match, site, blocks)]
    return SiteFormats([*general, *found])


def formats_of_parameter(
    method: Method, name: str, blocks: int, *, stage: Formats = UNSTAGED
) -> SiteFormats:
    """The formats of a parameter in the optimizer."""
    site = Site(name=name, kind="linear")
    found = [
        rule.roles
        for rule in method.rules
        if rule.match.kind is None and matches(rule.match, site, blocks)
    ]
    return SiteFormats([method.roles, stage, *found])


def matches(match: Sites, site: Site, blocks: int) -> bool:
    """Whether a rule is for a site of a model with so many blocks."""
    if match.kind not in (None, site.kind) or not fnmatchcase(site.name, match.name):
        return False
    if not match.blocks:
        return True
    return site.block in [number + blocks if number < 0 else number for number in match.blocks]


def _role(key: str) -> str:
    return key.partition("@")[0]
