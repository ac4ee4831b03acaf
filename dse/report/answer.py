"""The question of the space, answered in a paragraph from the numbers of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dse.evaluate.ruin import ConstantAnswer
from dse.queue import SUSTAINED
from dse.report.quantities.axis import WORDS, cost_axes
from dse.report.quantities.baseline import Gain, against, against_reference, gain
from dse.report.quantities.hardware import built_text, figures_text
from dse.report.quantities.unit import digits, loss_text, ratio, si, unit_of
from dse.run.entries import MeasuredPoint
from dse.run.manifest import TargetEntry
from dse.run.search_run import SearchRun

NOUNS = {"gemm": "GEMM groups", "conv2d": "convolutions"}


def answer(run: SearchRun) -> str:
    """One paragraph on the recommended point, or on the front where none is recommended."""
    if run.recommended is None:
        return (
            f"The front has {len(run.front)} points; the run has not recommended one "
            f"(status: {run.manifest.status})."
        )
    return " ".join(_sentences(run, run.recommended))


def caveats(run: SearchRun) -> list[str]:
    """Remarks that a reader must know before believing the numbers."""
    manifest = run.manifest
    found = [f"Proxy: {manifest.proxy}."] if manifest.proxy else []
    notes = {manifest.model.name: manifest.model.weights_note}
    found += [f"{name}: {note}" for name, note in notes.items() if note]
    found += [f"Loss is read from {one.title or one.name}." for one in manifest.outputs]
    if manifest.ranges:
        found.append(_ranges(manifest.ranges))
    if ruined := _ruined(run):
        found.append(ruined)
    if lacking := _no_network(run):
        found.append(lacking)
    found += [_other_network(run, target) for target in run.apart]
    found += _varied(manifest.space)
    unchecked = [target.name for target in manifest.targets if not target.validated]
    if unchecked:
        found.append(
            f"Costs on {_joined(unchecked)} are predictions, not validated against silicon."
        )
    losses = {point.loss for point in run.points}
    if len(run.points) > 1 and len(losses) == 1:
        found.append(
            f"Every assignment that was measured has the same loss ({losses.pop()}): nothing here "
            "tells them apart in quality."
        )
    if manifest.status != "complete":
        found.append(f"The run is {manifest.status}: the front may still move.")
    return found


def _varied(space: Mapping[str, Any]) -> Iterator[str]:
    """Figures of devices that the space sets instead of their files'."""
    for target in space.get("targets", ()):
        if isinstance(target, Mapping) and (settings := target.get("set")):
            listed = ", ".join(f"{key}={value}" for key, value in settings.items())
            yield f"{target.get('name') or target['device']} is varied: {listed}."


def _other_network(run: SearchRun, target: TargetEntry) -> str:
    """The missing kernels for which a target executes another network, and its loss column."""
    for one, other in ((target, run.primary), (run.primary, target)):
        names = [
            name
            for name in (*one.substituted, *one.narrowed)
            if one.instead(name) != other.instead(name)
        ]
        if lacking := _lacking(one, names):
            return f"{lacking}: what {target.name} loses is in {target.name}.quality_loss."
    return (
        f"{_streaming(run, target)} keeps sums and means between products in 16 bits: what "
        f"{target.name} loses is in {target.name}.quality_loss."
    )


def _streaming(run: SearchRun, target: TargetEntry) -> str:
    """The target with a 16-bit stream, of two networks that differ by it."""
    return (target if target.streamed else run.primary).name


def _no_network(run: SearchRun) -> str:
    """The kernels that no target has, in whose place all run the same; empty if none."""
    first, *others = run.manifest.targets
    names = [
        name
        for name in (*first.substituted, *first.narrowed)
        if all(other.instead(name) == first.instead(name) for other in others)
    ]
    lacking = _lacking(first, names, who="Each target" if others else first.name)
    return f"{lacking}: losses and costs are of that." if lacking else ""


def _lacking(target: TargetEntry, names: Sequence[str], who: str = "") -> str:
    """`h100 has no kernel for w4a4_nvfp4 and runs those weights with 16-bit activations`."""
    weights = [one for one in target.substituted if one in names]
    floats = [one for one in target.narrowed if one in names]
    parts = []
    if weights:
        parts.append(f"{_joined(weights)} and runs those weights with 16-bit activations")
    if floats:
        parts.append(f"{_joined(floats)} and runs {target.wide} in its place")
    return f"{who or target.name} has no kernel for {', nor for '.join(parts)}" if parts else ""


def _ranges(losses: Mapping[str, float | None]) -> str:
    """The range of static activations, and what the others would have lost."""
    known = {word: loss for word, loss in losses.items() if loss is not None}
    if not known:
        return "No range of static activations has a loss."
    best = min(known, key=known.__getitem__)
    others = ", ".join(f"{word} {digits(loss)}" for word, loss in known.items() if word != best)
    return (
        f"Static activations take the range {best}: {digits(known[best])} on the search split for "
        f"{others} (all in the widest integers)."
    )


def _ruined(run: SearchRun) -> str:
    """Says which points of the front have nothing left of the network; empty if none."""
    manifest = run.manifest
    measured = [point for point in run.front if point.loss is not None]
    if manifest.constant_loss is None or not measured:
        return ""
    flips = manifest.constant_flip_rate
    constant = ConstantAnswer(
        loss=manifest.constant_loss, flip_rate=math.nan if flips is None else flips
    )
    lost = [
        constant.as_bad(point.loss or 0.0, point.columns.get("flip_rate", math.nan))
        for point in measured
    ]
    if not any(lost):
        return ""
    some = f"{sum(lost)} of {len(lost)} points of the front are destroyed"
    return (
        f"{'Every point of the front is destroyed' if all(lost) else some}: the loss is that of "
        f"an answer that is always the same ({digits(constant.loss)} {run.loss_unit}) or worse."
    )


def _sentences(run: SearchRun, point: MeasuredPoint) -> Iterator[str]:
    if point.hardware:
        yield _built(run, point)
    yield _what(run, point)
    yield from (_elsewhere(run, point, target) for target in run.apart)
    yield from _gains(run, point)
    yield from _sustained(run, point)
    yield from _cheapest(run, point)
    if point.tied:
        yield "Within the noise it cannot be told from a cheaper uniform assignment."


def _built(run: SearchRun, point: MeasuredPoint) -> str:
    """The hardware to build, with what it takes; of how many."""
    found = run.hardware
    first = f"Of {found.size} chips build" if found is not None else "Build"
    return f"{first} the one with {built_text(run, point.hardware)}: {figures_text(run, point)}."


def _what(run: SearchRun, point: MeasuredPoint) -> str:
    """Formats and their places, at a loss."""
    place = f"On {run.primary.title}, " if run.manifest.targets else ""
    loss = loss_text(point.loss, point.stderr)
    shares = _joined(_shares(run, point)) or "every region takes its only choice"
    return f"{place}{shares} at a loss of {loss} {run.loss_unit}{_metric(run, point)}."


def _shares(run: SearchRun, point: MeasuredPoint) -> list[str]:
    """One phrase a kind of region, the most frequent kind first."""
    kinds = {one.name: one.kind for one in run.searched}
    grouped: dict[str, dict[str, str]] = {}
    for name, choice in run.chosen(point).items():
        grouped.setdefault(kinds[name], {})[name] = choice
    ordered = sorted(grouped.items(), key=lambda item: -len(item[1]))
    return [_share(kind, chosen) for kind, chosen in ordered]


def _share(kind: str, chosen: Mapping[str, str]) -> str:
    """`18 of 25 GEMM groups run in w4a4_nvfp4 (7 in bf16)`, or `head in bf16` where one is all."""
    counts = Counter(chosen.values())
    (first, most), *others = counts.most_common()
    if len(chosen) == 1:
        return f"{next(iter(chosen))} in {first}"
    rest = f" ({_joined([f'{count} in {name}' for name, count in others])})" if others else ""
    return f"{most} of {counts.total()} {NOUNS.get(kind, kind)} run in {first}{rest}"


def _elsewhere(run: SearchRun, point: MeasuredPoint, target: TargetEntry) -> str:
    """The network that a target executes in the point's place, and its loss."""
    chosen = run.chosen(point).values()
    changed = [one for one in chosen if run.primary.instead(one) != target.instead(one)]
    streamed = [one for one in chosen if one in {*target.streamed} ^ {*run.primary.streamed}]
    if not changed and not streamed:
        return f"On {target.name} the same network runs."
    loss = point.loss_on(target.name)
    measured = f"its loss is {loss_text(loss, point.stderr_on(target.name))}"
    where = target if any(target.instead(one) for one in changed) else run.primary
    how = "in 16 bits" if {*changed} <= {*where.narrowed} else "with 16-bit activations"
    why = f"{where.name} runs {len(changed)} of these {how}"
    if not changed:
        why = f"{_streaming(run, target)} keeps sums and means between products in 16 bits"
    return (
        f"{why}, so that on {target.name} it is another network: "
        f"{'its loss was not measured' if loss is None else measured}."
    )


def _metric(run: SearchRun, point: MeasuredPoint) -> str:
    metric, whole = run.manifest.metric, run.manifest.reference_metric
    value = point.columns.get(metric)
    if value is None or whole is None:
        return ""
    return f"; {metric.replace('_', ' ')} {digits(value, 4)} instead of {digits(whole, 4)}"


def _gains(run: SearchRun, point: MeasuredPoint) -> Iterator[str]:
    """Against the reference, and against the best uniform assignment here and elsewhere."""
    if not run.cost_objectives:
        return
    column = run.cost_objectives[0]
    quantity = column.rpartition(".")[2]
    value, whole = point.columns.get(column), against_reference(run, point, column)
    noun, better = WORDS.get(quantity, (quantity, "cheaper"))
    if value is None:
        return
    parts = []
    if whole is not None and run.reference is not None and run.reference is not point:
        parts.append(_compared(whole, better, run.reference.title))
    best = gain(run, point, column)
    if best and best.baseline is not run.reference:
        parts.append(_compared(best, better, f"uniform {best.baseline.title}"))
    for other in run.manifest.targets:
        elsewhere = f"{other.name}.{quantity}"
        if elsewhere != column and (far := gain(run, point, elsewhere, of=column)):
            parts.append(_compared(far, better, f"{far.baseline.title} on {other.name}"))
    comparison = f", {_joined(parts)}" if parts else ""
    yield f"Predicted {noun}: {si(value, unit_of(column))}{comparison}."


def _sustained(run: SearchRun, point: MeasuredPoint) -> Iterator[str]:
    """The most requests a second within the bounds of the scenario's load, on each target."""
    scenario: Any = run.manifest.space.get("scenario") or {}
    bounds = [str(bound) for bound in (scenario.get("load") or {}).get("bounds", ())]
    for target in run.manifest.targets if bounds else ():
        own = f"{target.name}.{SUSTAINED}" if len(run.manifest.targets) > 1 else SUSTAINED
        rate = point.columns.get(own)
        if rate is None:
            continue
        kept = f"{_joined(bounds)} {'hold' if len(bounds) > 1 else 'holds'}"
        other = None if run.reference is point else run.reference
        whole = None if other is None else other.columns.get(own)
        against = f" ({digits(whole)} in {other.title})" if other and whole is not None else ""
        yield f"On {target.name} {kept} for {digits(rate)} requests a second{against}."


def _compared(found: Gain, better: str, baseline: str) -> str:
    """`1.92× (1.85 to 2.00) faster than bf16`; a factor that rounds to one is no gain.

    Where the interval leaves open which is better, the two are tied.
    """
    if ratio(found.factor) == ratio(1.0):
        return f"no {better} than {baseline}"
    shown, word = (found.inverse, "worse") if found.factor < 1 else (found, better)
    if shown.speedup and shown.speedup.is_tied:
        return f"tied with {baseline} at {shown.text}"
    return f"{shown.text} {word} than {baseline}"


def _cheapest(run: SearchRun, point: MeasuredPoint) -> Iterator[str]:
    """Cost in quality of going all the way to the cheapest uniform assignment."""
    axes = {axis.column: axis for axis in cost_axes(run)}
    axis = axes.get(run.cost_objectives[0]) if run.cost_objectives else None
    priced = [p for p in run.uniforms if axis and p.columns.get(axis.column) and not run.broken(p)]
    if not priced or axis is None or not point.loss:
        return
    best = min(priced, key=lambda p: p.columns[axis.column])
    found = against(run, best, point, axis.column)
    if found is None or ratio(found.factor) == ratio(1.0):
        return
    tied = found.speedup is not None and found.speedup.is_tied
    if found.factor > 1 and not tied and best.loss is not None and best.loss > point.loss:
        yield (
            f"{best.title} everywhere would be {found.text} {axis.better} still, at "
            f"{digits(best.loss / point.loss, 2)} times the loss."
        )


def _joined(parts: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
