"""The linear layers of a method as other libraries know them: by name, six operands each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dse.training.method import Method, Operand, SiteRule
from dse.training.roles import ATTENTION, FACTORS, MULTIPLIED, OPTIMIZER, SiteFormats

WIDE = ("bf16", "fp32")
"""Formats that libraries leave as they are."""
BESIDE = ("weight_gradient", "accumulator", "output", "saved_activation", *ATTENTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Layers of one pattern of names."""

    pattern: str
    """As in file names; `*` for all that no other pattern fits."""
    where: str
    """The field of the method, for messages."""
    operands: Mapping[str, Operand]
    """By `role@pass`, both factors of each product."""

    @property
    def is_wide(self) -> bool:
        """Whether nothing is rounded to less than 16 bits."""
        return all(one.format in WIDE for one in self.operands.values())


def layers_of(method: Method) -> tuple[Layers, ...]:
    """Exceptions first, later rules before earlier ones, all other layers last."""
    rules = [(index, one) for index, one in enumerate(method.rules) if _is_linear(one)]
    found = [
        _layers(one.match.name, f"rules.{index}", SiteFormats([method.roles, one.roles]))
        for index, one in reversed(rules)
    ]
    return (*found, _layers("*", "roles", SiteFormats([method.roles])))


OF_A_LOOP = {
    "schedule": "formats that change during a run",
    "oscillation": "weights that are set back during a run",
    "rounds": "clients that train apart",
    "tuning": "adapters on a pruned network",
    "functions": "numbers between products, which are the module's own",
}
"""Parts of a method that are the training loop's or the network's."""


def beyond(method: Method) -> Iterator[str]:
    """Parts of a method that no other library's settings of products have, one line each."""
    yield from (
        f"{part}: {words}"
        for part, words in OF_A_LOOP.items()
        if getattr(method, part) is not None
    )
    if method.update.mode != "master":
        yield f"update.mode: {method.update.mode}: weights without a wide copy"
    if method.loss_scale.kind != "none":
        yield f"loss_scale.kind: {method.loss_scale.kind}: the factor belongs to the loop"
    for key, given in method.roles.items():
        role = key.partition("@")[0]
        name = given if isinstance(given, str) else given.format
        if role in (*OPTIMIZER, *BESIDE) and name not in WIDE:
            yield f"roles.{key}: {name}: only factors of products can be chosen"
    linear = [one for one in method.rules if _is_linear(one)]
    for index, rule in enumerate(method.rules):
        yield from _beyond_rule(f"rules.{index}", rule, alone=len(linear) == 1)


def _beyond_rule(where: str, rule: SiteRule, *, alone: bool) -> Iterator[str]:
    if not _is_linear(rule):
        formats = [one if isinstance(one, str) else one.format for one in rule.roles.values()]
        if not rule.match.optional or not all(one in WIDE for one in formats):
            yield f"{where}.match.kind: {rule.match.kind}: only linear layers can be chosen"
        return
    if rule.match.blocks:
        yield f"{where}.match.blocks: layers are known by name; write a pattern of names"
    if not alone and "*" not in rule.roles:
        yield f"{where}.roles: with several rules each must name all factors ('*')"
    for key in rule.roles:
        if key != "*" and key.partition("@")[0] not in FACTORS:
            yield f"{where}.roles.{key}: only factors of products can be chosen"


def _is_linear(rule: SiteRule) -> bool:
    return rule.match.kind in (None, "linear")


def _layers(pattern: str, where: str, formats: SiteFormats) -> Layers:
    operands = {
        f"{role}@{pass_}": formats.operand(role, pass_)
        for pass_, roles in MULTIPLIED.items()
        for role in roles
    }
    return Layers(pattern=pattern, where=where, operands=operands)
