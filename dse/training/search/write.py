"""The run folder of a search over methods, written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from dse.files import write_atomically
from dse.run import files
from dse.run.training_run import (
    RECOMMENDED_METHOD,
    RecommendedMethod,
    TrainingManifest,
    TrainingRun,
    Verdict,
    write_training_run,
)
from dse.run.write import write_json
from dse.training.method import Method, Operand, SiteRule, Sites
from dse.training.search.described import written
from dse.training.search.gaps import gap
from dse.training.search.loop import Found
from dse.training.search.points import MethodProblem
from dse.training.stability import seeds_needed
from hwmodels.yaml_file import yaml_text


def write_found(
    folder: Path, manifest: TrainingManifest, problem: MethodProblem, found: Found
) -> None:
    """Writes tables, the front's methods, and the recommended one as a method file."""
    recommended = recommendation(found)
    methods = {one.trial: method_content(one.point.method) for one in found.front}
    write_json(
        folder / files.FRONT_ASSIGNMENTS,
        [{"trial": trial, "method": content} for trial, content in methods.items()],
    )
    text = f"# {sentence(recommended, problem)}\n{yaml_text(dict(recommended.method))}"
    write_atomically(folder / RECOMMENDED_METHOD, text)
    write_training_run(
        TrainingRun(
            folder=folder,
            manifest=manifest,
            points=tuple(one.entry for one in (found.reference, *found.records)),
            front=tuple(one.entry for one in found.front),
            choices={one.trial: one.point.choices for one in found.records},
            sensitivity=found.sensitivity,
            ablation=found.ablation,
            recommended=recommended,
        )
    )


def recommendation(found: Found) -> RecommendedMethod:
    """The choice of the search or the named method beside it: what loses less on other seeds."""
    chosen, beside = found.chosen, found.beside
    assert chosen.report_runs is not None, "what is chosen was reported"
    assert beside.report_runs is not None, "named methods were reported"
    between = gap(chosen.report_runs, beside.report_runs)
    interval = between.interval
    verdict: Verdict = "unresolved"
    if chosen.trial == beside.trial:
        verdict = "same"
    elif between.diverged or interval is None:
        verdict = "worse" if between.diverged else "unresolved"
    elif not interval.holds_zero:
        verdict = "better" if interval.mean < 0 else "worse"
    holds = chosen.holds and between.mean < 0
    taken = chosen if holds else beside
    return RecommendedMethod(
        trial=taken.trial,
        name=taken.name,
        method=method_content(taken.point.method),
        beside=beside.name or f"#{beside.trial}",
        beside_trial=beside.trial,
        chosen=chosen.trial,
        verdict=verdict,
        mean=None if verdict == "same" else between.mean,
        low=None if interval is None or verdict == "same" else interval.low,
        high=None if interval is None or verdict == "same" else interval.high,
        pairs=len(between.pairs),
        seeds_needed=seeds_needed(between.pairs, abs(between.mean)),
    )


def sentence(one: RecommendedMethod, problem: MethodProblem) -> str:
    """The first line of the method's file."""
    title = one.name or f"trial {one.trial}"
    return f"{title} of a search of {problem.origin}, {one.verdict} beside {one.beside}"


def method_content(method: Method) -> dict[str, object]:
    """A method as its file has it: without what is the default."""
    plain = asdict(Method(source=""))
    content: dict[str, object] = {}
    for key, value in asdict(method).items():
        if value == plain[key]:
            continue
        if key == "roles":
            content[key] = {role: _role(one) for role, one in method.roles.items()}
        elif key == "rules":
            content[key] = [_rule(rule) for rule in method.rules]
        elif isinstance(value, dict) and isinstance(before := plain[key], dict):
            content[key] = {name: one for name, one in value.items() if one != before[name]}
        else:
            content[key] = value
    return content


def _role(given: str | Operand) -> str | dict[str, object]:
    return given if isinstance(given, str) else written(given)


def _rule(rule: SiteRule) -> dict[str, object]:
    plain = asdict(Sites())
    match = {key: one for key, one in asdict(rule.match).items() if one != plain[key]}
    return {"match": match, "roles": {role: _role(one) for role, one in rule.roles.items()}}
