"""Provenance of the numbers of a run, as label and text."""

from __future__ import annotations

from collections.abc import Iterator

from dse.report.quantities.unit import digits
from dse.run.manifest import ModelEntry, PhaseEntry, TargetEntry
from dse.run.search_run import SearchRun


def facts(run: SearchRun) -> list[tuple[str, str]]:
    """Model, devices and versions of a run, in the order a reader asks."""
    manifest, samples = run.manifest, run.manifest.samples
    lines = [
        ("space", manifest.space_file),
        ("model", _network(manifest.model)),
        ("cost model", _network(manifest.cost_model) if manifest.cost_model else ""),
        *((f"target {target.name}", _target(target)) for target in manifest.targets),
        *((f"phase {phase.name}", _phase(phase)) for phase in manifest.phases),
        ("outputs", "; ".join(output.title or output.name for output in manifest.outputs)),
        ("objectives", ", ".join(manifest.objectives)),
        (
            "samples",
            f"{samples.calibration} to calibrate, {samples.search} to search, "
            f"{samples.report} to report; the splits are disjoint",
        ),
        ("effort by stage", _stages(run)),
        ("seed", str(manifest.seed)),
        ("versions", ", ".join(_versions(run))),
        ("created", f"{manifest.created} ({manifest.status})"),
        ("run folder", str(run.folder)),
    ]
    return [(label, text) for label, text in lines if text]


def _network(network: ModelEntry) -> str:
    digest = f"digest {network.digest[:16]}" if network.digest else ""
    parts = (network.name, network.description, network.weights_note, digest)
    return "; ".join(part for part in parts if part)


def _target(target: TargetEntry) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in target.figures.items())
    checked = "validated against silicon" if target.validated else "not validated against silicon"
    note = (
        target.note
        if "validated" in target.note
        else "; ".join(filter(None, (checked, target.note)))
    )
    parts = (target.title, f"device figures: {kinds}" if kinds else "", note)
    return "; ".join(part for part in parts if part)


def _phase(phase: PhaseEntry) -> str:
    dims = ", ".join(f"{name} = {size}" for name, size in phase.dims.items())
    return f"share {digits(phase.share, 2)}" + (f"; {dims}" if dims else "")


def _stages(run: SearchRun) -> str:
    seconds = run.manifest.elapsed_s
    parts = [f"{name.replace('_', ' ')} {digits(value)} s" for name, value in seconds.items()]
    return ", ".join(parts)


def _versions(run: SearchRun) -> Iterator[str]:
    yield f"dse {run.manifest.dse}"
    for name, version in run.manifest.versions.items():
        yield f"{name} {version}"
