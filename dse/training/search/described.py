"""A method taken apart: the operand of every role and pass, so that single axes can be changed.

Two methods are the same where this is the same, whatever their files call things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from dse.errors import MethodError
from dse.training.method import Method, Operand, SiteRule, Sites, operand_of
from dse.training.roles import (
    ATTENTION,
    DEFAULTS,
    SENT,
    TRAINED,
    Site,
    formats_at,
    passes_of,
)
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.names import quantizer_object
from hwmodels.formats.quantizer import Encoding, Format, Quantizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNNAMED = ("saved_activation", "output", *SENT)
"""Roles that mean nothing of their own where nobody names them."""
UNREAD = ("saved_activation@fprop", "weight_gradient@update")
"""Places that nothing reads: a tensor is saved once, and kept as it was saved."""
PLACES = tuple(
    place
    for role in TRAINED
    for place in (f"{role}@{pass_}" for pass_ in passes_of(role))
    if place not in UNREAD
)
"""Every role in every pass of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The content of a method."""

    operands: Mapping[str, Operand | None]
    """By `role@pass`; None where the role is left to others."""
    rest: Method
    """Everything else: rules, update, loss scale; no roles, and nothing for people."""

    def canonical(self) -> dict[str, object]:
        """Plain data that is equal for equal methods."""
        rest = _said(self.rest, Method(source=""))
        rest["rules"] = [_canonical_rule(rule) for rule in self.rest.rules]
        operands = {
            place: _canonical(place, one)
            for place, one in self.operands.items()
            if one is not None or place.partition("@")[0] not in SENT
        }
        return {**operands, **rest}

    @property
    def digest(self) -> str:
        """16 hex digits that are the same for equal methods."""
        text = json.dumps(self.canonical(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def method(self, *, source: str) -> Method:
        """The method, in the shortest words."""
        return replace(self.rest, source=source, roles=_shortened(self.operands))


def described(method: Method) -> Described:
    """The content of a method.

    Raises:
        HardwareError: a format that nobody knows.
    """
    plain = replace(method, rules=())
    linear = formats_at(plain, Site(name="", kind="linear"), 0)
    attention = formats_at(plain, Site(name="", kind="attention"), 0)
    operands: dict[str, Operand | None] = {}
    for place in PLACES:
        role, _, pass_ = place.partition("@")
        formats = attention if role in ATTENTION else linear
        named = formats.named(role, pass_)
        operands[place] = named if role in UNNAMED else named or DEFAULTS[role]
    return Described(operands=operands, rest=replace(method, source="", note="", roles={}))


def differences(first: Described, second: Described) -> Iterator[str]:
    """Lines on what two methods do not share: the place, and both values."""
    ours, theirs = first.canonical(), second.canonical()
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield f"{key}: {_words(first, key)} instead of {_words(second, key)}"


def _words(one: Described, key: str) -> str:
    if key in one.operands:
        operand = one.operands[key]
        return "nothing" if operand is None else str(written(operand))
    return json.dumps(one.canonical().get(key))


def written(operand: Operand) -> str | dict[str, object]:
    """An operand as a file has it: the name of its format, or that and what is around it."""
    plain = Operand(format=operand.format)
    said = {key: value for key, value in asdict(operand).items() if value != getattr(plain, key)}
    return operand.format if not said else {"format": operand.format, **said}


def same_operand(first: Operand | None, second: Operand | None, place: str) -> bool:
    """Whether two operands of a place round alike, whatever their formats are called."""
    return _canonical(place, first) == _canonical(place, second)


@lru_cache(maxsize=1024)
def format_name(quantizer: Quantizer) -> str:
    """The name of a quantizer: of the catalogue, else spelled out.

    Raises:
        MethodError: one that no name says.
    """
    wanted = _nameless(quantizer.format)
    found = next((one.name for one in catalog.FORMATS.values() if _nameless(one) == wanted), None)
    name = found or _composed(quantizer.format)
    named = quantizer.replaced(format=replace(quantizer.format, name=name)).name
    if _plain(catalog.quantizer(named)) != _plain(quantizer):
        raise MethodError(f"{named}: no name says this format: {quantizer_object(quantizer)}")
    return named


def _composed(format: Format) -> str:
    """A format spelled out (`hwmodels.formats.compose`)."""
    if format.scale is None:
        return format.element.name
    match format.granularity:
        case "group":
            where = f"g{format.group}"
        case "block":
            where = f"b{format.block_rows}x{format.group}"
        case _:
            where = format.granularity
    rule = format.scale.rule
    default = "floor" if format.scale.encoding.kind == "exponent" else "nearest"
    said = "" if rule == default else f"-{rule}"
    level = f"+{format.tensor_scale.name}" if format.tensor_scale else ""
    return f"{format.element.name}@{where}/{format.scale.encoding.name}{said}{level}"


def _said(one: DataclassInstance, plain: DataclassInstance) -> dict[str, object]:
    """The fields that are not the default: a field that a later version adds changes no digest."""
    before = asdict(plain)
    found: dict[str, object] = {}
    for key, value in asdict(one).items():
        if isinstance(value, dict) and isinstance(inner := before[key], dict):
            value = {name: part for name, part in value.items() if part != inner.get(name)}  # noqa: PLW2901
        if value not in (before[key], {}):
            found[key] = value
    return found


def _canonical_rule(rule: SiteRule) -> object:
    roles = {key: _canonical(key, operand_of(one)) for key, one in sorted(rule.roles.items())}
    return {"match": _said(rule.match, Sites()), "roles": roles}


def _canonical(place: str, operand: Operand | None) -> object:
    """Plain data of an operand, without names."""
    if operand is None:
        return None
    content = _said(operand, Operand(format=""))
    try:
        if place.partition("@")[0] == "accumulator":
            content["format"] = asdict(accumulator(operand.format))
        else:
            content["format"] = _content(operand.format)
    except HardwareError:
        content["format"] = operand.format
    return content


@lru_cache(maxsize=1024)
def _content(format: str) -> object:
    """The quantizer of a name as plain data."""
    return _plain(catalog.quantizer(format))


def _plain(quantizer: Quantizer) -> object:
    """JSON of what a quantizer does, without names and sources."""
    found = quantizer_object(quantizer.replaced(format=_nameless(quantizer.format)))
    return json.loads(json.dumps(found, sort_keys=True))


def _nameless(format: Format) -> Format:
    """A format without names and sources, its own and those of its encodings."""
    scale = format.scale
    return replace(
        format,
        name="",
        source="",
        element=_bare(format.element),
        scale=scale and replace(scale, encoding=_bare(scale.encoding)),
        tensor_scale=_bare_level(format.tensor_scale),
        zero_point=_bare_level(format.zero_point),
        offset=_bare_level(format.offset),
        super_scale=_bare_level(format.super_scale),
    )


def _bare(encoding: Encoding) -> Encoding:
    return replace(encoding, name="", source="")


def _bare_level(encoding: Encoding | None) -> Encoding | None:
    return None if encoding is None else _bare(encoding)


def _shortened(operands: Mapping[str, Operand | None]) -> dict[str, str | Operand]:
    """Entries of a method file: what is not the default, one entry where all passes agree."""
    found: dict[str, str | Operand] = {}
    for role in TRAINED:
        default = None if role in UNNAMED else DEFAULTS[role]
        kept = {place: one for place, one in operands.items() if place.startswith(f"{role}@")}
        if all(same_operand(one, default, place) for place, one in kept.items()):
            continue
        first = next(iter(kept.values()))
        if first is not None and all(
            same_operand(one, first, place) for place, one in kept.items()
        ):
            found[role] = _entry(first)
            continue
        for place, one in kept.items():
            if one is not None and not same_operand(one, default, place):
                found[place] = _entry(one)
    return found


def _entry(operand: Operand) -> str | Operand:
    plain = Operand(format=operand.format)
    return operand.format if operand == plain else operand
