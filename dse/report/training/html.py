"""The page of a search over methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dse.files import write_atomically
from dse.report.html import page
from dse.report.training.answer import answer, axis_text, caveats, change_text
from dse.report.training.figures import axes_view, gaps_view
from dse.report.training.table import HEADINGS, rows
from dse.run.training_run import RECOMMENDED_METHOD, AxisChange, TrainingRun, read_training_run


@dataclass(frozen=True, slots=True, kw_only=True)
class _AxisRow:
    """An axis of the ablation."""

    method: str
    axis: str
    change: str
    step: str
    memory: str


def write_training_report(run_dir: Path) -> Path:
    """Write `report.html` into the run folder and give its path.

    Raises:
        RunError: the folder is missing, is no such run, or is torn.
    """
    run = read_training_run(run_dir)
    path = run_dir / "report.html"
    method = run.folder / RECOMMENDED_METHOD
    views = (
        axes_view("sensitivity", run.sensitivity, "loss with the axis turned, minus the start's"),
        axes_view("ablation", _own(run), "loss with the axis turned back, minus that before"),
    )
    text = page(
        "training.html.j2",
        title=run.manifest.asked or run.folder.name,
        run=run,
        manifest=run.manifest,
        answer=answer(run),
        caveats=caveats(run),
        gaps=gaps_view(run),
        views={view.name: view for view in views if view},
        headings=HEADINGS,
        rows=rows(run),
        ablation=[_axis_row(run, one) for one in run.ablation],
        refused=[one for one in run.sensitivity if one.refused],
        method=method.read_text(encoding="utf-8") if method.is_file() else "",
        facts=_facts(run),
    )
    write_atomically(path, text)
    return path


def _own(run: TrainingRun) -> list[AxisChange]:
    chosen = run.recommended.chosen if run.recommended else None
    return [one for one in run.ablation if one.base == chosen]


def _axis_row(run: TrainingRun, one: AxisChange) -> _AxisRow:
    return _AxisRow(
        method=run.by_trial[one.base].title,
        axis=axis_text(one),
        change=change_text(one),
        step="" if one.step_ratio is None else f"{one.step_ratio:.3f}",
        memory="" if one.memory_ratio is None else f"{one.memory_ratio:.3f}",
    )


def _facts(run: TrainingRun) -> list[tuple[str, str]]:
    """Provenance of the numbers, as label and text."""
    manifest = run.manifest
    seconds = ", ".join(f"{name} {value:g} s" for name, value in manifest.elapsed_s.items())
    versions = {"dse": manifest.dse, **manifest.versions}
    found = [
        ("space", manifest.space_file),
        ("workload", f"{manifest.workload}, {manifest.steps} steps; data: {manifest.data}"),
        (
            "seeds of the search",
            f"{_range(manifest.search_seeds)}, first half of what is held out",
        ),
        ("seeds of the report", f"{_range(manifest.report_seeds)}, second half"),
        (
            "step",
            f"{manifest.cost_model} with "
            f"{', '.join(f'{name} = {size}' for name, size in manifest.dims.items())} on "
            f"{manifest.device} under {manifest.runtime}",
        ),
        ("start", manifest.start),
        ("objectives", ", ".join(manifest.objectives)),
        ("effort", f"{manifest.runs} seeds trained; {seconds}"),
        ("assumptions of the price", "; ".join(manifest.remarks)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("created", f"{manifest.created} ({manifest.status})"),
        ("run folder", str(run.folder)),
    ]
    return [(label, text) for label, text in found if text]


def _range(seeds: tuple[int, ...]) -> str:
    return f"{seeds[0]} to {seeds[-1]}"
