"""The answer of a search over methods in sentences, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator

from dse.report.quantities.unit import si
from dse.run.entries import MeasuredPoint
from dse.run.training_run import AxisChange, RecommendedMethod, TrainingRun


def difference_text(mean: float | None, low: float | None, high: float | None) -> str:
    """`+0.0142 (+0.0096 to +0.0189)`; a dash for what is not known."""
    if mean is None:
        return "–"
    if low is None or high is None:
        return f"{mean:+.4f}"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def gap_text(point: MeasuredPoint, prefix: str = "report_") -> str:
    """The gap of a point to bf16 with its interval, on the report's seeds or the search's."""
    name = f"{prefix}gap"
    found = [point.columns.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    return difference_text(*found)


def answer(run: TrainingRun) -> str:
    """The recommended method, how it stands beside the named one, and beside bf16."""
    found = run.recommended
    if found is None:
        return "No method trained on all seeds of the report."
    point = run.by_trial[found.trial]
    return f"{_verdict(run, found)} {_beside_bf16(run, point)}"


def _verdict(run: TrainingRun, found: RecommendedMethod) -> str:
    beside = run.by_trial[found.beside_trial]
    chosen = run.by_trial[found.chosen].title
    time = f"at its predicted step time on {run.manifest.target} ({si(_step(beside), 's')})"
    numbers = difference_text(found.mean, found.low, found.high)
    seeds = f"{found.pairs} other seeds and held-out samples"
    match found.verdict:
        case "same":
            return (
                f"{found.beside} itself: nothing that was searched lost less {time}, on the "
                f"search's {len(run.manifest.search_seeds)} seeds."
            )
        case "better":
            return f"{chosen} loses less than {found.beside} {time}: {numbers} nats on {seeds}."
        case "worse":
            return (
                f"{chosen}, which the search chose, does not hold on other seeds: {numbers} nats "
                f"beside {found.beside} {time}; {found.beside} is recommended."
            )
        case "unresolved":
            more = (
                f"; a difference of this size would take about {found.seeds_needed} seeds"
                if found.seeds_needed
                else ""
            )
            return (
                f"Not resolved: {chosen}, which lost least in the search, beside {found.beside} "
                f"{time}: {numbers} nats on {seeds}{more}."
            )


def _beside_bf16(run: TrainingRun, point: MeasuredPoint) -> str:
    whole = run.reference
    faster = _step(whole) / _step(point)
    memory = point.columns["memory_bytes"] / whole.columns["memory_bytes"]
    return (
        f"Beside bf16 {point.title} loses {gap_text(point)} nats; its step is predicted "
        f"{faster:.2f} times as fast and takes {memory:.2f} of the memory."
    )


def _step(point: MeasuredPoint) -> float:
    return point.columns["step_s"]


def axis_sentences(changes: tuple[AxisChange, ...]) -> Iterator[str]:
    """A line an axis that matters beyond the noise, the largest first; a last one on the rest."""
    known = [one for one in changes if one.mean is not None]
    resolved = [one for one in known if one.is_resolved or one.diverged]
    for one in sorted(resolved, key=lambda one: -abs(one.mean or 0.0)):
        yield f"{axis_text(one)}: {change_text(one)}"
    if rest := len(known) - len(resolved):
        yield f"{rest} more whose interval holds zero"


def axis_text(one: AxisChange) -> str:
    """`fprop_weight: nearest to four over six`."""
    return f"{one.variable}: {one.before} to {one.after}"


def change_text(one: AxisChange) -> str:
    """The effect of an axis in words."""
    if one.refused:
        return f"not alone: {one.refused}"
    diverged = f", {one.diverged} diverged" if one.diverged else ""
    return f"{difference_text(one.mean, one.low, one.high)}{diverged}"


def caveats(run: TrainingRun) -> list[str]:
    """Limits of what the run says."""
    manifest = run.manifest
    found = [
        f"Losses are of {manifest.workload} ({manifest.parameters:,} parameters, "
        f"{manifest.steps} steps); steps and memory are predicted for {manifest.cost_model} on "
        f"one {manifest.device} and were not measured. What breaks a small network need not "
        "order recipes of a large one.",
    ]
    if idle := [axis_text(one) for one in run.sensitivity if one.mean == one.low == one.high == 0]:
        found.append(
            f"Not a digit of {manifest.workload} depends on {'; '.join(idle)}: it has nothing "
            "there, and what that axis gains in time or memory is not paid for in these losses."
        )
    if manifest.status != "complete":
        found.append("The run was interrupted; the tables are of what had ended.")
    return found
