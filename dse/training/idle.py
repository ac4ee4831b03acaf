"""Parts of a method that change nothing in a run of a network, found before it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dse.errors import some
from dse.training.method import Formats, Method, Operand, Schedule
from dse.training.quantized import Quantized
from dse.training.roles import (
    ATTENTION,
    FACTORS,
    OPTIMIZER,
    SENT,
    UNSTAGED,
    Site,
    SiteFormats,
    formats_at,
    formats_of_parameter,
    passes_of,
)
from dse.training.stages import Stages

PROBE = Operand(format="fp32", headroom=2.0)
"""An operand that no file can say, in the place of one that is looked for."""
AT_PARAMETERS = (*OPTIMIZER, *SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A method on a network through which one sample has gone."""

    method: Method
    found: Quantized
    samples: int
    """Of a step."""
    steps: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """Products of the network."""
        return tuple(at.site for at in self.found.sites.values())

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the network's parameters."""
        return tuple(name for name, _ in self.found.model.named_parameters())


def idle(run: Fitted) -> Iterator[str]:
    """Parts of a method that change nothing in a run, a line each."""
    yield from _unread(run)
    yield from _unturned(run)
    yield from _unreached(run)
    functions = run.method.functions
    for name in functions.rewrites if functions else ():
        if name not in run.found.rewritten:
            yield f"functions.rewrites: {name}: the network calls no such function"
    update = run.method.update
    elements = [one.numel() for one in run.found.model.parameters()]
    if update.states_from > max(elements, default=0):
        yield (
            f"update.states_from: no parameter has {update.states_from} elements, so that all "
            f"moments stay in fp32; the largest has {max(elements, default=0)}"
        )


def _unread(run: Fitted) -> Iterator[str]:
    """Entries of roles, stages and rules that no product and no parameter takes."""
    method = run.method
    for key in method.roles:
        if not _is_taken(run, replace(method, roles={**method.roles, key: PROBE}), key):
            yield f"roles.{key}: rules say otherwise wherever it counts; nothing takes it"
    schedule = method.schedule
    for index, stage in enumerate(schedule.stages if schedule else ()):
        for key in stage:
            if not _is_taken(run, method, key, stage={**stage, key: PROBE}):
                yield (
                    f"schedule.stages.{index}.{key}: rules say otherwise wherever it counts; "
                    "nothing takes it"
                )
    for index, rule in enumerate(method.rules):
        for key in {} if rule.match.optional else rule.roles:
            probed = replace(rule, roles={**rule.roles, key: PROBE})
            rules = (*method.rules[:index], probed, *method.rules[index + 1 :])
            if not _is_taken(run, replace(method, rules=rules), key):
                yield (
                    f"rules.{index}.roles.{key}: {_unmatched(run, key)}, or later rules say "
                    "otherwise; nothing takes it"
                )


def _unmatched(run: Fitted, key: str) -> str:
    if key.partition("@")[0] in AT_PARAMETERS:
        return f"its match fits no parameter ({some(run.parameters)})"
    products = dict.fromkeys(site.name for site in run.sites)
    return f"its match fits no product with this role ({some(products)})"


def _is_taken(run: Fitted, method: Method, key: str, *, stage: Formats = UNSTAGED) -> bool:
    """Whether something that reads a role has the probe that stands at `key`."""
    role = key.partition("@")[0]
    blocks = run.found.blocks
    if role in AT_PARAMETERS:
        formats = [
            formats_of_parameter(method, name, blocks, stage=stage) for name in run.parameters
        ]
        return _has_probe(formats, (role,))
    layers: list[SiteFormats] = []
    attention: list[SiteFormats] = []
    for site in run.sites:
        kind = attention if site.kind == "attention" else layers
        kind.append(formats_at(method, site, blocks, stage=stage))
    if key == "*":
        return _has_probe(layers, FACTORS) or _has_probe(attention, ATTENTION)
    if role in ATTENTION:
        return _has_probe(attention, (role,))
    return _has_probe(layers, (role,)) or _has_probe(attention, (role,))


def _has_probe(formats: Iterable[SiteFormats], roles: Sequence[str]) -> bool:
    return any(
        one.named(role, pass_) is PROBE
        for one in formats
        for role in roles
        for pass_ in passes_of(role)
    )


def _unturned(run: Fitted) -> Iterator[str]:
    """Rotations that are longer than the sums of some layers, whose values they leave alone."""
    short: dict[tuple[int, str], dict[str, int]] = {}
    for at in run.found.sites.values():
        sums = {**at.sums, "wgrad": at.sums["wgrad"] * run.samples} if at.sums else {}
        for pass_, length in sums.items():
            for role in FACTORS[:3]:
                size = at.operand(role, pass_).hadamard if pass_ in passes_of(role) else 0
                if size > length:
                    short.setdefault((size, pass_), {})[at.site.name] = length
    for (size, pass_), sites in short.items():
        lengths = ", ".join(map(str, sorted(set(sites.values()))))
        yield (
            f"hadamard {size} is longer than the sums of {pass_} ({lengths}) at "
            f"{some(sites)}, and rotates nothing there"
        )


def _unreached(run: Fitted) -> Iterator[str]:
    """Parts that would begin after the last step."""
    method, steps = run.method, run.steps
    if method.schedule is not None:
        yield from _unreached_stages(method, method.schedule, steps)
    watch = method.oscillation
    if watch is not None and watch.every + watch.window > steps:
        yield (
            f"oscillation: the first watch would end after step {watch.every + watch.window}, "
            f"and a run has {steps}; nothing is set back"
        )
    rounds = method.rounds
    if rounds is not None and rounds.every > steps:
        yield (
            f"rounds.every: {rounds.every} steps are more than a run has ({steps}); clients send "
            "once, at its end"
        )


def _unreached_stages(method: Method, schedule: Schedule, steps: int) -> Iterator[str]:
    if schedule.kind == "plateau" and schedule.window * schedule.every >= steps:
        yield (
            f"schedule: whether the loss stands still is first known after "
            f"{schedule.window * schedule.every} steps (window x every), and a run has {steps}; "
            "its first stage is the only one"
        )
    if schedule.kind not in ("phase", "cycle"):
        return
    stages = Stages(method, steps=steps, seed=0)
    ran = [stages.at(step, "") for step in range(steps)]
    for index, stage in enumerate(schedule.stages):
        if not any(one is stage for one in ran):
            yield f"schedule.stages.{index}: no step of {steps} is in it"
