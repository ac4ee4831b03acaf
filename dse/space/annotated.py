"""An annotated model as a space, and a space as annotations of its model."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dse.errors import SpaceError
from dse.graph.annotations import CANDIDATES, TIES, Annotations, Formats
from dse.graph.assignment_json import quantizer_spec
from dse.graph.ir.site import SUM_ROLE, Region, Site
from dse.space.build import is_searched, resolve_choice, searched_sites
from dse.space.problem import Problem
from dse.space.schema import Match, Mode, Rule, Tie
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import SEARCHED_ROLES

KEPT = "kept"
"""The choice of kernels that keep the model's own precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedCandidates:
    """The entries of a space file under `candidates` and `ties`."""

    rules: tuple[Rule, ...]
    ties: tuple[Tie, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernels:
    """Regions that take one choice, with the lists of their roles."""

    tie: str
    """Empty for a region on its own."""
    regions: tuple[Region, ...]
    formats: Mapping[str, Formats]
    """By role, all of one length."""


def annotated_candidates(
    annotations: Annotations, regions: Sequence[Region], *, origin: str
) -> AnnotatedCandidates:
    """The rules and ties of a space that offers what a model's annotations name.

    Args:
        annotations: of the model.
        regions: the model's.
        origin: names the model's file in errors.

    Raises:
        SpaceError: candidates where no format is searched, operands of one kernel whose lists
            contradict each other, a kernel in two ties; all in one message.
    """
    searchable = [region for region in regions if is_searched(region)]
    problems = [
        f"{CANDIDATES}: {key}: no product multiplies it, so no format is searched there"
        for key in sorted(annotations.candidates.keys() - _keys(searchable))
    ]
    groups = _groups(annotations, searchable, problems)
    kernels = [_kernels(tie, held, annotations, problems) for tie, held in groups]
    if problems:
        raise SpaceError("\n".join(f"{origin}: {problem}" for problem in problems))
    return AnnotatedCandidates(
        rules=_rules(kernels),
        ties=tuple(
            Tie(match=_match(region), name=one.tie)
            for one in kernels
            if one.tie
            for region in one.regions
        ),
    )


def annotations_of_problem(problem: Problem, regions: Sequence[Region]) -> Annotations:
    """The candidates of every site of a problem, aligned by choice, and its ties."""
    candidates, ties = {}, {}
    by_name = {region.name: region for region in regions}
    for variable in problem.variables:
        for site in variable.sites:
            candidates[site.key] = tuple(
                choice.quantizers.get(site.role) for choice in variable.choices
            )
        if len(variable.regions) > 1:
            held = [searched_sites(by_name[name])[0] for name in variable.regions]
            ties[variable.name] = tuple(site.key for site in held)
    return Annotations(candidates=candidates, ties=ties)


def _keys(regions: Iterable[Region]) -> set[str]:
    return {site.key for region in regions for site in _stated(region)}


def _stated(region: Region) -> tuple[Site, ...]:
    """The sites that a choice of a region can name."""
    return (*searched_sites(region), *region.sums)


def _groups(
    annotations: Annotations, regions: Sequence[Region], problems: list[str]
) -> list[tuple[str, tuple[Region, ...]]]:
    """Regions by tie, in the order of execution; alone where nothing ties them."""
    tied: dict[str, str] = {}
    owner = {site.key: region.name for region in regions for site in searched_sites(region)}
    for name, sites in annotations.ties.items():
        for key in sites:
            if key not in owner:
                problems.append(f"{TIES}: {name}: {key}: no format is searched there")
            elif tied.setdefault(owner[key], name) != name:
                problems.append(f"{TIES}: {name}: {key}: its kernel is in tie "
                                f"{tied[owner[key]]} too")  # fmt: skip
    groups: dict[tuple[str, str], list[Region]] = {}
    for region in regions:
        tie = tied.get(region.name, "")
        groups.setdefault((tie, "" if tie else region.name), []).append(region)
    return [(tie, tuple(held)) for (tie, _), held in groups.items()]


def _kernels(
    tie: str, regions: tuple[Region, ...], annotations: Annotations, problems: list[str]
) -> _Kernels:
    """Regions with one list a role; adds to `problems` what contradicts."""
    stated: dict[str, tuple[Site, Formats]] = {}
    for site in (site for region in regions for site in _stated(region)):
        formats = annotations.candidates.get(site.key, (None,))
        first, known = stated.setdefault(site.role, (site, formats))
        if known != formats:
            problems.append(
                f"{CANDIDATES}: {site.key}: {_said(formats)}, but {first.key}, which the same "
                f"{'tie' if tie else 'kernel'} holds in the same role, has {_said(known)}; give "
                "both the same"
            )
    count = max(len(formats) for _, formats in stated.values())
    longest = next(site for site, formats in stated.values() if len(formats) == count)
    for site, formats in stated.values():
        if len(formats) not in (1, count):
            problems.append(
                f"{CANDIDATES}: {site.key}: {len(formats)} entries, but {longest.key} of the same "
                f"kernel has {count}; entries at one place go together, so give both as many, or "
                "one that always holds"
            )
    spread = {
        role: formats * count if len(formats) == 1 else formats
        for role, (_, formats) in stated.items()
    }
    return _Kernels(tie=tie, regions=regions, formats=spread)


def _said(formats: Formats) -> str:
    return ", ".join("null" if one is None else one.name for one in formats)


def _rules(kernels: Sequence[_Kernels]) -> tuple[Rule, ...]:
    """A rule for all regions of one kind and role where they offer the same, else one each."""
    uses = [(region, _uses(one)) for one in kernels for region in one.regions]
    alike: dict[tuple[str, str], dict[str, None]] = {}
    for region, use in uses:
        alike.setdefault((region.kind, region.role), {})[repr(use)] = None
    rules: dict[Match, Rule] = {}
    for region, use in uses:
        same = len(alike[region.kind, region.role]) == 1
        match = Match(kind=region.kind, role=region.role) if same else _match(region)
        rules.setdefault(match, Rule(match=match, use=use))
    return tuple(rules.values())


def _uses(kernels: _Kernels) -> tuple[str | Mode, ...]:
    """The choices of kernels in their order; those that are the same are offered once."""
    places = [
        dict(zip(kernels.formats, place, strict=True))
        for place in zip(*kernels.formats.values(), strict=True)
    ]
    distinct = [place for number, place in enumerate(places) if place not in places[:number]]
    uses: dict[str, str | Mode] = {}
    for place in distinct:
        use = _use(place, taken=uses)
        uses[use if isinstance(use, str) else use.name] = use
    return tuple(uses.values())


def _match(region: Region) -> Match:
    return Match(name=glob.escape(region.name))


def _use(place: Mapping[str, Quantizer | None], *, taken: Container[str]) -> str | Mode:
    """The scheme or format that says the same of these roles, else a mode of its own."""
    quantizers = {role: quantizer for role, quantizer in place.items() if quantizer is not None}
    total = quantizers.get(SUM_ROLE)
    behind = "" if total is None else f"@{total.name}"
    operands = (one.name for role, one in quantizers.items() if role != SUM_ROLE)
    for name in (f"{base}{behind}" for base in (*catalog.SCHEMES, *dict.fromkeys(operands))):
        if _offers(name, place.keys()) == quantizers:
            return name
    specs = {role: quantizer_spec(quantizer) for role, quantizer in quantizers.items()}
    return Mode.model_validate({"name": _mode_name(place, taken), **specs})


def _offers(name: str, roles: Iterable[str]) -> Mapping[str, Quantizer]:
    """The quantizers that a choice of that name gives these roles; none where it is no choice."""
    try:
        choice = resolve_choice(name)
    except HardwareError:
        return {}
    return {role: choice.quantizers[role] for role in roles if role in choice.quantizers}


def _mode_name(place: Mapping[str, Quantizer | None], taken: Container[str]) -> str:
    """A name of the formats by role, of the characters that a space allows, that is free."""
    parts = [_plain(place[role]) for role in SEARCHED_ROLES if role in place]
    name = parts[0] if len(set(parts)) == 1 else "--".join(parts)
    if place.get(SUM_ROLE) is not None:
        name = f"{name}--{_plain(place[SUM_ROLE])}"
    names = itertools.chain([name], (f"{name}--{number}" for number in itertools.count(2)))
    spoken_for = (*catalog.FORMATS, *catalog.SCHEMES)
    return next(free for free in names if free not in taken and free not in spoken_for)


def _plain(quantizer: Quantizer | None) -> str:
    if quantizer is None:
        return KEPT
    return re.sub(r"[^A-Za-z0-9_.]+", "-", quantizer.name).strip("-.") or KEPT
