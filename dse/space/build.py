"""Space + regions -> `Problem`: rules matched, choices resolved, ties joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from dse.errors import SpaceError, nearest
from dse.graph.ir.site import SUM_ROLE, Region, Site
from dse.graph.patterns.stored import ROLE as STORED
from dse.space.problem import Choice, Problem, Variable
from dse.space.ranges import check_range, takes_range, with_range
from dse.space.schema import Match, Mode, Rule, Space
from dse.space.sums import refusal, summed, with_sum
from hwmodels.errors import HardwareError, UnknownFormatError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import split_sum, sum_quantizer
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES, SEARCHED_ROLES

SHOWN = 8
"""Regions that a message names."""
EXAMPLE_FORMAT = "bf16"
"""Suggestion of the error about unmatched regions."""


def build_problem(
    space: Space,
    regions: Sequence[Region],
    *,
    origin: str = "space",
    stored: Mapping[str, Sequence[Site]] | None = None,
) -> Problem:
    """The decision variables of a model's regions under a space.

    Args:
        space: candidates and ties.
        regions: of the model.
        origin: what errors call the space.
        stored: tensors between products that follow a region's activations, by its name
            (`dse.space.targeted`).

    Raises:
        SpaceError: unknown schemes or formats, rules and ties that match nothing, regions that no
            rule matches; all of them at once.
    """
    searchable = [region for region in regions if is_searched(region)]
    depth = 1 + max((r.block for r in searchable if r.block is not None), default=-1)
    problems: list[str] = []
    choices = _with_ranges(
        space, _rule_choices(space.candidates, origin, problems), origin, problems
    )
    known = _known(searchable, [region.name for region in regions if region.is_given])
    ruled = _apply_rules(space.candidates, searchable, depth, origin, problems, known=known)
    tied = _apply_ties(space, searchable, depth, origin, problems, known=known)
    problems += _unused_sums(searchable, ruled, choices, origin)
    if problems:
        raise SpaceError("\n".join(problems))
    groups: dict[str, list[Region]] = {}
    for region in searchable:
        # A branch of an If that reads the same weights has no decision of its own.
        own = region.twin or region.name
        name = tied.get(region.name) or tied.get(own) or own
        groups.setdefault(name, []).append(region)
    variables = [
        _variable(name, members, ruled, choices, origin) for name, members in groups.items()
    ]
    if stored:
        variables = [_with_stored(variable, stored) for variable in variables]
    return Problem(variables=tuple(variables))


def is_searched(region: Region) -> bool:
    """Whether a space chooses a region's formats: it has sites, and does not come quantized."""
    return bool(searched_sites(region)) and not region.is_given


def searched_sites(region: Region) -> tuple[Site, ...]:
    """The sites of a region that a choice can name."""
    return tuple(site for site in region.sites if site.role in SEARCHED_ROLES)


def resolve_choice(use: str | Mode) -> Choice:
    """The quantizers by role of a scheme, a format or a named mode.

    A name may end with the accumulator of its products: `w8a8_int8@int20:saturate`.

    Raises:
        HardwareError: an unknown scheme, format or accumulator, or one that cannot sum them.
    """
    if isinstance(use, Mode):
        fields = use.model_dump(exclude={"name", SUM_ROLE}, exclude_none=True)
        quantizers = {role: catalog.quantizer(spec) for role, spec in fields.items()}
        chosen = Choice(name=use.name, quantizers=quantizers)
        return with_sum(chosen, sum_quantizer(use.accumulator)) if use.accumulator else chosen
    base, total = split_sum(use)
    if total is not None:
        return replace(with_sum(resolve_choice(base), total), name=use)
    if catalog.is_scheme(use):
        scheme = catalog.scheme(use)
        parts = {"weight": scheme.weight, "input": scheme.input, "other": scheme.other}
        return Choice(
            name=use,
            quantizers={
                role: parts[ROLES[role].scheme] or scheme.other for role in SEARCHED_ROLES
            },
        )
    try:
        found = catalog.uniform(use)
    except UnknownFormatError as error:
        known = [*catalog.SCHEMES, *catalog.FORMATS]
        if ":" in use:
            raise
        raise UnknownFormatError(
            f"unknown scheme or format {use!r}{nearest(use, known)} See: dse formats"
        ) from error
    # What is no weight has no rounding to learn.
    quantizers = dict.fromkeys(SEARCHED_ROLES, found.without_data)
    return Choice(name=use, quantizers={**quantizers, "weight": found})


def matches(match: Match, region: Region, depth: int) -> bool:
    """Whether a region fits a pattern; `depth` is the number of blocks."""
    if match.blocks is not None:
        first, last = (index + depth if index < 0 else index for index in match.blocks)
        if region.block is None or not first <= region.block <= last:
            return False
    pairs = ((region.name, match.name), (region.kind, match.kind), (region.role, match.role))
    return all(fnmatchcase(value, pattern) for value, pattern in pairs)


def _rule_choices(
    rules: Sequence[Rule], origin: str, problems: list[str]
) -> Mapping[int, tuple[Choice, ...]]:
    resolved: dict[int, tuple[Choice, ...]] = {}
    for number, rule in enumerate(rules):
        found: list[Choice] = []
        for position, use in enumerate(rule.use):
            try:
                found.append(resolve_choice(use))
            except HardwareError as error:
                problems.append(f"{origin}: candidates.{number}.use.{position}: {error}")
        names = [choice.name for choice in found]
        problems += [
            f"{origin}: candidates.{number}.use: {name!r} is listed twice"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        resolved[number] = tuple(found)
    return resolved


def _with_ranges(
    space: Space,
    choices: Mapping[int, tuple[Choice, ...]],
    origin: str,
    problems: list[str],
) -> Mapping[int, tuple[Choice, ...]]:
    """The choices with the space's first range, where it names any: a search knows which it is."""
    for word in space.ranges:
        try:
            check_range(word)
        except HardwareError as error:
            problems.append(f"{origin}: ranges: {error}")
    if problems or not space.ranges:
        return choices
    if not any(takes_range(choice) for offered in choices.values() for choice in offered):
        problems.append(
            f"{origin}: ranges: no candidate rounds activations to static integers without naming "
            "their range; leave it out, or offer w8a8_int8_static"
        )
        return choices
    first = space.ranges[0]
    return {
        number: tuple(with_range(choice, first) for choice in offered)
        for number, offered in choices.items()
    }


def _apply_rules(
    rules: Sequence[Rule],
    regions: Sequence[Region],
    depth: int,
    origin: str,
    problems: list[str],
    *,
    known: str,
) -> Mapping[str, int]:
    """Region name -> number of the first rule that matches it."""
    ruled: dict[str, int] = {}
    for number, rule in enumerate(rules):
        fitting = [region for region in regions if matches(rule.match, region, depth)]
        fresh = [region for region in fitting if region.name not in ruled]
        where = f"{origin}: candidates.{number}.match"
        if not fitting:
            problems.append(f"{where}: matches no region of the model{known}")
        elif not fresh:
            problems.append(f"{where}: every region it matches is taken by an earlier rule")
        ruled.update((region.name, number) for region in fresh)
    unmatched = [region.name for region in regions if region.name not in ruled]
    if unmatched:
        problems.append(
            f"{origin}: candidates: no rule matches {', '.join(unmatched[:SHOWN])}"
            f"{' ...' if len(unmatched) > SHOWN else ''}; add a rule, "
            f"for example {{match: {{}}, use: [{EXAMPLE_FORMAT}]}} at the end"
        )
    return ruled


def _apply_ties(
    space: Space,
    regions: Sequence[Region],
    depth: int,
    origin: str,
    problems: list[str],
    *,
    known: str,
) -> Mapping[str, str]:
    """Region name -> name of the tie that holds it."""
    tied: dict[str, str] = {}
    for number, tie in enumerate(space.ties):
        members = [region.name for region in regions if matches(tie.match, region, depth)]
        if not members:
            problems.append(f"{origin}: ties.{number}.match: matches no region{known}")
        twice = [name for name in members if name in tied]
        if twice:
            problems.append(
                f"{origin}: ties.{number}: {twice[0]} is in tie {tied[twice[0]]!r} too"
            )
        tied.update(dict.fromkeys(members, tie.name))
    return tied


def _unused_sums(
    regions: Sequence[Region],
    ruled: Mapping[str, int],
    choices: Mapping[int, tuple[Choice, ...]],
    origin: str,
) -> Iterator[str]:
    """Says of accumulators that no region of their rule can have."""
    for number, offered in choices.items():
        held = [region for region in regions if ruled.get(region.name) == number]
        for choice in offered:
            if SUM_ROLE not in choice.quantizers or not held:
                continue
            reasons = [refusal(choice, region.kind, _roles(region)) for region in held]
            if all(reasons):
                yield (
                    f"{origin}: candidates.{number}.use: {choice.name}: none of its regions "
                    f"({held[0].name}, ...) can be summed so: {reasons[0]}"
                )


def _roles(region: Region) -> set[str]:
    return {site.role for site in searched_sites(region)}


def _known(regions: Sequence[Region], kept: Sequence[str]) -> str:
    kinds = sorted({f"kind {region.kind}, role {region.role}" for region in regions})
    told = f"; the model has {'; '.join(kinds) or 'none whose format can be chosen'}"
    shown = f"{', '.join(kept[:SHOWN])}{' ...' if kept[SHOWN:] else ''}"
    return f"{told} (quantized already, left as they are: {shown})" if kept else told


def _variable(
    name: str,
    members: Sequence[Region],
    ruled: Mapping[str, int],
    choices: Mapping[int, tuple[Choice, ...]],
    origin: str,
) -> Variable:
    first = members[0]
    rules = sorted({ruled[region.name] for region in members})
    names = [region.name for region in members]
    if any(choices[rule] != choices[ruled[first.name]] for rule in rules):
        raise SpaceError(
            f"{origin}: {_held(members)}: the regions of {name!r} have candidates from rules "
            f"{', '.join(map(str, rules))}, which differ; one rule must match them all "
            f"({', '.join(names)})"
        )
    sites = tuple(site for region in members for site in searched_sites(region))
    roles = {site.role for site in sites}
    own = [summed(choice, first.kind, roles) for choice in choices[rules[0]]]
    if any(SUM_ROLE in choice.quantizers for choice in own):
        sites += tuple(site for region in members for site in region.sums)
    offered = _distinct(own, roles | {SUM_ROLE})
    return Variable(
        name=name,
        kind=first.kind,
        role=first.role,
        block=first.block if all(one.twin == first.name for one in members[1:]) else None,
        relative_depth=first.relative_depth,
        regions=tuple(names),
        sites=sites,
        choices=offered,
    )


def _held(members: Sequence[Region]) -> str:
    """The part of a space because of which regions are one variable."""
    shared = any(region.twin for region in members)
    return "candidates (branches of one If share these weights)" if shared else "ties"


def _distinct(choices: Sequence[Choice], roles: set[str]) -> tuple[Choice, ...]:
    """Choices that differ on these roles: of equal ones the first stands for all."""
    seen: dict[tuple[tuple[str, Quantizer], ...], Choice] = {}
    for choice in choices:
        relevant = {role: q for role, q in choice.quantizers.items() if role in roles}
        key = tuple(sorted(relevant.items(), key=lambda item: item[0]))
        seen.setdefault(key, Choice(name=choice.name, quantizers=relevant))
    return tuple(seen.values())


def _with_stored(variable: Variable, stored: Mapping[str, Sequence[Site]]) -> Variable:
    """The variable with the tensors between products that follow its regions' activations."""
    sites = tuple(site for name in variable.regions for site in stored.get(name, ()))
    if not sites:
        return variable
    choices = tuple(_storing(choice) for choice in variable.choices)
    return replace(variable, sites=(*variable.sites, *sites), choices=choices)


def _storing(choice: Choice) -> Choice:
    """The choice that also says how tensors between products are stored.

    Only scales that are known before a network runs are a tensor's own; without them it stays as
    it is.
    """
    found = choice.quantizers.get("activation")
    if found is None or found.is_dynamic:
        return choice
    kept = replace(found, transforms=())
    return replace(choice, quantizers={**choice.quantizers, STORED: kept})
