"""A search over methods on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dse.report.training.answer import answer, axis_sentences, caveats
from dse.report.training.table import HEADINGS, rows
from dse.run.training_run import RECOMMENDED_METHOD, read_training_run

MARKS = {"recommended": "★", "front": " ", "uniform": " "}
STYLES = {"recommended": "bold", "front": "", "uniform": "dim"}


def print_training_front(run_dir: Path, console: Console) -> None:
    """Print the front, the named methods beside it, the answer, and what axes buy.

    Raises:
        RunError: the folder is missing, is no such run, or is torn.
    """
    run = read_training_run(run_dir)
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        text = heading in (HEADINGS[0], HEADINGS[-1])
        shown.add_column(
            heading, justify="left" if text else "right", overflow="fold",
            no_wrap=heading == HEADINGS[0],
        )  # fmt: skip
    for row in rows(run):
        first, *others = (cell.text for cell in row.cells)
        cells = [f"{MARKS[row.kind]} {first}", *others]
        shown.add_row(*map(Text, cells), style=STYLES[row.kind])
    console.print(shown)
    console.print(Text(answer(run)))
    if run.recommended is not None:
        own = tuple(one for one in run.ablation if one.base == run.recommended.chosen)
        lines = list(axis_sentences(own))
        if lines:
            title = run.by_trial[run.recommended.chosen].title
            console.print(Text(f"axes of {title} turned back, loss after minus before:"))
        for line in lines:
            console.print(Text(f"  {line}"))
    for caveat in caveats(run):
        console.print(Text(caveat, style="dim"))
    manifest = run.manifest
    total = sum(manifest.elapsed_s.values())
    console.print(
        f"{manifest.runs} seeds trained in {total:.0f} s; gaps in nats, mean and 95 % interval "
        f"over {len(manifest.report_seeds)} paired seeds that the search did not see",
        style="dim", highlight=False,
    )  # fmt: skip
    for name in (RECOMMENDED_METHOD, "report.html"):
        if (run.folder / name).is_file():
            label = "method" if name == RECOMMENDED_METHOD else "report"
            console.print(f"{label}: {run.folder / name}", soft_wrap=True, highlight=False)
