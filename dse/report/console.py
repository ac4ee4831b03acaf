"""The front on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dse.report.across import across
from dse.report.answer import answer, caveats
from dse.report.quantities.hardware import effort_text, labels, price_text
from dse.report.quantities.tie import MARK
from dse.report.quantities.unit import digits, percent
from dse.report.table import HARDWARE, Cell, Row, front_table
from dse.run.read import read_run
from dse.run.search_run import SearchRun

LONGEST = 14
"""Rows of the front that are printed; a longer one is thinned evenly."""

DROPPED = {"power": 32, "energy": 32, "native": 32, "weights": 16}
"""Columns that a narrow terminal does without, in this order, and the characters that the formats
must have got before they stay; longer phrases are wrapped."""

STYLES = {"front": "", "recommended": "bold", "uniform": "dim"}
MARKS = {"front": " ", "recommended": "★", "uniform": " "}
RATIO = "×"
"""Sign of a speed-up."""
BROKEN = "✗"
"""Mark of a row that breaks a constraint."""


def print_front(run_dir: Path, console: Console) -> None:
    """Print the front, the uniform assignments beside it, the answer and what it took.

    Raises:
        RunError: the folder is missing, is no run, or is torn.
    """
    run = read_run(run_dir)
    table = front_table(run)
    front = _thinned([row for row in table.rows if row.kind != "uniform"])
    beside = [row for row in table.rows if row.kind == "uniform"]
    console.print(_shown(table.headings, [*front, *beside], console.width))
    hidden = len(run.front) - len(front)
    if hidden:
        console.print(f"{hidden} more in {run.folder / 'front.csv'}", style="dim", soft_wrap=True)
    if table.broken:
        console.print(f"{BROKEN} breaks {table.broken}", style="dim", highlight=False)
    if table.tied:
        console.print(
            f"{MARK} may be as fast as a faster point of the front", style="dim", highlight=False
        )
    if shares := _native(run):
        console.print(f"native share of the front: {shares}", style="dim", highlight=False)
    console.print(Text(answer(run)))
    if run.hardware is not None:
        _print_prices(run, console)
    if several := across(run):
        console.print(Text(several.sentence))
    for caveat in caveats(run):
        console.print(Text(caveat, style="dim"))
    console.print(
        f"{effort_text(run)} for {digits(run.manifest.forwards)} forward-equivalents"
        f"{_duration(run)}; loss on the report split, ± one standard error{_against(run)}",
        style="dim",
        highlight=False,
    )
    page = run.folder / "report.html"
    if page.is_file():
        console.print(f"report: {page}", soft_wrap=True, highlight=False)


def _print_prices(run: SearchRun, console: Console) -> None:
    """The gain of a step of each parameter, from the recommended hardware."""
    assert run.hardware is not None, "hardware varies"
    names = ", ".join(labels(run).values())
    console.print(Text(f"hardware: {names}; what one step buys from there:", style="dim"))
    for price in run.hardware.shadow_prices:
        console.print(Text(f"  {price_text(run, price)}"))


def _native(run: SearchRun) -> str:
    """`h100 10 % to 100 %` for every target that lacks a kernel for something on the front."""
    parts = []
    for target in run.manifest.targets:
        known = [point.native_share(target.name) for point in run.front]
        shares = [share for share in known if share is not None]
        if shares and min(shares) < 1:
            parts.append(f"{target.name} {percent(min(shares))} to {percent(max(shares))}")
    return ", ".join(parts)


def _against(run: SearchRun) -> str:
    """The base of the factors beside latencies, and what stands behind them."""
    ends = ", ± the ends of its 90 % interval" if run.speedups else ""
    return f"; × against {run.title(run.reference)}{ends}" if run.reference else ""


def _duration(run: SearchRun) -> str:
    total = run.manifest.elapsed_s.get("total")
    return f" in {digits(total)} s" if total else ""


def _shown(headings: Sequence[str], rows: Sequence[Row], width: int) -> RichTable:
    kept, fits = _fitting(headings, rows, width)
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index in kept:
        heading = headings[index]
        text = heading in ("point", HARDWARE, "formats")
        shown.add_column(
            _heading(heading),
            justify="left" if text else "right",
            no_wrap=fits and heading not in (HARDWARE, "formats"),
            overflow="fold",
        )
    for row in rows:
        cells = [_text(row.cells[index], narrow=not fits) for index in kept]
        cells[0] = f"{BROKEN if row.broken else MARKS[row.kind]} {cells[0]}"
        shown.add_row(*(Text(cell) for cell in cells), style=STYLES[row.kind])
    return shown


def _fitting(headings: Sequence[str], rows: Sequence[Row], width: int) -> tuple[list[int], bool]:
    """Columns that fit beside each other: energy goes first, then native shares, then weights.

    Where many targets have a loss and a latency each, the rest does not fit beside each other:
    speed-ups and errors go below their numbers.
    """
    widths = [
        max(len(_text(row.cells[index])) for row in rows) + 2 for index in range(len(headings))
    ]
    kept = list(range(len(headings)))
    for word, phrase in DROPPED.items():
        widths[-1] = phrase
        if sum(widths[i] for i in kept) > width:
            kept = [i for i in kept if not headings[i].startswith(word)]
    return kept, sum(widths[i] for i in kept) <= width


def _heading(text: str) -> str:
    """On two lines, so that columns stay narrow."""
    return {"point": "  point"}.get(
        text, text.replace("native on ", "native\n").replace(" ", "\n", 1)
    )


def _text(cell: Cell, *, narrow: bool = False) -> str:
    """A cell's words; in a narrow column its speed-up stands below, and its error may."""
    between = "\n" if narrow and RATIO in cell.detail else " "
    return f"{cell.text}{between}{cell.detail}".rstrip().replace(" ± ", " ±" if narrow else "±")


def _thinned(rows: list[Row]) -> list[Row]:
    """About `LONGEST` rows, evenly over the front; no uniform or recommended row is left out."""
    if len(rows) <= LONGEST:
        return rows
    last = len(rows) - 1
    kept = {round(place * last / (LONGEST - 2)) for place in range(LONGEST - 1)}
    return [
        row for i, row in enumerate(rows) if i in kept or row.kind == "recommended" or row.uniform
    ]
