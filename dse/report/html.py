"""One self-contained page: the figures, the tables and the provenance of a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from dse.files import write_atomically
from dse.report.across import across
from dse.report.answer import answer, caveats
from dse.report.card import cards
from dse.report.figures.format_map import format_map_view
from dse.report.figures.hardware import chips_view, side_by_side_view
from dse.report.figures.pareto import pareto_view
from dse.report.figures.progress import effort_view, hypervolume_view
from dse.report.figures.sensitivity import heat_view, rank_view
from dse.report.figures.shadow import shadow_view
from dse.report.figures.time import time_view
from dse.report.figures.view import View
from dse.report.provenance import facts
from dse.report.quantities.breakdown import Support, support
from dse.report.quantities.hardware import PriceTable, effort_text, price_table
from dse.report.quantities.unit import digits
from dse.report.table import front_table
from dse.run.read import read_run
from dse.run.search_run import SearchRun

FILTERS = {"digits": digits}


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run folder and give its path.

    Raises:
        RunError: the folder is missing, is no run, or is torn.
    """
    run = read_run(run_dir)
    path = run_dir / "report.html"
    write_atomically(path, page("report.html.j2", title=_title(run), **_context(run)))
    return path


def page(template: str, **context: object) -> str:
    """A template of the package with the shared style, script and one copy of plotly.js."""
    return _environment().get_template(template).render(plotly_js=get_plotlyjs(), **context)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dse.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _title(run: SearchRun) -> str:
    return run.manifest.asked or f"{run.manifest.model.name}: {run.folder.name}"


def _context(run: SearchRun) -> dict[str, object]:
    return {
        "run": run,
        "manifest": run.manifest,
        "answer": answer(run),
        "caveats": caveats(run),
        "cards": cards(run),
        "facts": facts(run),
        "table": front_table(run),
        "across": across(run),
        "support": _support_rows(run),
        "prices": _prices(run),
        "effort": effort_text(run),
        "views": {view.name: view for view in _views(run)},
    }


def _views(run: SearchRun) -> list[View]:
    views = (
        pareto_view(run), format_map_view(run), time_view(run), heat_view(run), rank_view(run),
        hypervolume_view(run), effort_view(run), side_by_side_view(run), chips_view(run),
        shadow_view(run),
    )  # fmt: skip
    return [view for view in views if view is not None]


def _support_rows(run: SearchRun) -> dict[str, list[Support]]:
    """Choice to one entry a target."""
    rows: dict[str, list[Support]] = {}
    for entry in support(run):
        rows.setdefault(entry.choice, []).append(entry)
    return rows


def _prices(run: SearchRun) -> PriceTable | None:
    """Gains of a step of each parameter of the hardware; None where none varies."""
    return price_table(run) if run.hardware and run.hardware.shadow_prices else None
