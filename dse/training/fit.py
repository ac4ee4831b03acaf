"""Methods held against the network of a workload, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dse.errors import MethodError
from dse.training.method import Formats, Method, Operand, Schedule
from dse.training.quantized import Quantized, apply
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
from dse.training.tuning.tuned import Tuned, check
from dse.training.workloads.deal import dealt
from dse.training.workloads.workload import Workload

PROBE = Operand(format="fp32", headroom=2.0)
"""An operand that no file can say, in the place of one that is looked for."""
AT_PARAMETERS = (*OPTIMIZER, *SENT)
SHOWN = 3


def check_fit(
    methods: Mapping[str, Method], workload: Workload, *, steps: int | None = None
) -> list[str]:
    """Runs one held-out sample through the network under each method.

    Args:
        methods: By name.
        workload: The network, of seed 0, and what it holds out.
        steps: Of a run; the workload's by default.

    Returns:
        Parts of methods that do nothing to this network in so many steps, a line each.

    Raises:
        MethodError: rules, roles or passes that no site of the network has, data that cannot be
            dealt to clients; a line a method.
    """
    model, sample = workload.model(0), workload.held_out()[0].inputs[:1]
    samples = len(workload.batch(0, 0).inputs)
    lines, idle = [], []
    for name, method in methods.items():
        try:
            with torch.no_grad():
                found = apply(model, method).eval()
                found(sample)
                if found.gates is not None:
                    found.gates.share()
            if method.rounds is not None:
                dealt(workload, method.rounds, seed=0)
            check(method.tuning)
            if method.tuning is not None:
                Tuned(method.tuning, found.weights, steps=1, seed=0)
        except MethodError as error:
            lines.append(f"{name} on {workload.name}: {error}")
            continue
        run = _Run(method=method, found=found, samples=samples, steps=steps or workload.steps)
        idle += [f"{name} on {workload.name}: {line}" for line in _idle(run)]
    if lines:
        raise MethodError("\n".join(lines))
    return idle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A method on a network through which one sample has gone."""

    method: Method
    found: Quantized
    samples: int
    """Of a step."""
    steps: int

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(at.site for at in self.found.sites.values())

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the network's parameters."""
        return tuple(name for name, _ in self.found.model.named_parameters())


def _idle(run: _Run) -> Iterator[str]:
    """Parts of a method that change nothing in a run, a line each."""
    yield from _unread(run)
    yield from _unturned(run)
    yield from _unreached(run)
    update = run.method.update
    elements = [one.numel() for one in run.found.model.parameters()]
    if update.states_from > max(elements, default=0):
        yield (
            f"update.states_from: no parameter has {update.states_from} elements, so that all "
            f"moments stay in fp32; the largest has {max(elements, default=0)}"
        )


def _unread(run: _Run) -> Iterator[str]:
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


def _unmatched(run: _Run, key: str) -> str:
    if key.partition("@")[0] in AT_PARAMETERS:
        return f"its match fits no parameter ({_shown(run.parameters)})"
    return f"its match fits no product with this role ({_shown([s.name for s in run.sites])})"


def _is_taken(run: _Run, method: Method, key: str, *, stage: Formats = UNSTAGED) -> bool:
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


def _unturned(run: _Run) -> Iterator[str]:
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
            f"{_shown(list(sites))}, and rotates nothing there"
        )


def _unreached(run: _Run) -> Iterator[str]:
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


def _shown(names: Sequence[str]) -> str:
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
