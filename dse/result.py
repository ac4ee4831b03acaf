"""A finished search for programs: its front, read from the run folder."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dse.errors import InfeasibleError, RunError, SpaceError, nearest
from dse.run.folder import read_failures

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUALITY = "quality_loss"
LIMIT = re.compile(r"\s*(?P<column>[\w.\-]+)\s*(?P<sense><=|>=)\s*(?P<number>[-+\d.eE]+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One assignment of a front."""

    trial: int
    name: str
    """The scheme of a uniform assignment, else empty."""
    values: Mapping[str, float]
    """Every number of `front.csv` by its column; what was not measured is missing."""
    choices: Mapping[str, str]
    """What every variable took."""
    assignment: Mapping[str, object]
    """As `dse evaluate --assignment` takes it: `{"model": ..., "default": ..., "sites": ...}`."""

    def __getitem__(self, column: str) -> float:
        """The number in a column.

        Raises:
            RunError: there is none.
        """
        if column not in self.values:
            raise RunError(f"trial {self.trial}: no {column!r}{nearest(column, self.values)}")
        return self.values[column]


@dataclass(frozen=True, slots=True, kw_only=True)
class Front(Sequence[FrontPoint]):
    """The Pareto front that holds on the report split, cheapest first."""

    folder: Path
    """The run folder."""
    objectives: tuple[str, ...]
    """Columns, all minimised; the first is `report_quality_loss`."""
    metric: str
    """Column of the task's metric or of the user's score; empty without one."""
    points: tuple[FrontPoint, ...]
    recommended: FrontPoint | None
    """The knee."""
    failures: Mapping[int, str]
    """Trial -> why it failed."""

    @classmethod
    def read(cls, folder: str | Path) -> Front:
        """The front of a run folder.

        Raises:
            RunError: it is no finished run.
        """
        folder = Path(folder)
        manifest = _json(folder / "manifest.json")
        assignments = {
            entry["trial"]: entry["assignment"] for entry in _json(folder / "front.json")
        }
        choices = pd.read_csv(folder / "choices.csv", dtype=str).to_dict("records")
        chosen = {
            int(row.pop("trial")): {str(name): str(choice) for name, choice in row.items()}
            for row in choices
        }
        table = _table(folder)
        points = tuple(
            FrontPoint(
                trial=int(row["trial"]),
                name=row["name"] if isinstance(row["name"], str) else "",
                values=_numbers(row),
                choices=chosen[int(row["trial"])],
                assignment=assignments[int(row["trial"])],
            )
            for row in table.to_dict("records")
        )
        best = None
        if (folder / "recommended.json").exists():
            best = _json(folder / "recommended.json")["trial"]
        return cls(
            folder=folder,
            objectives=tuple(manifest["objectives"]),
            metric=manifest["metric"],
            points=points,
            recommended=next((point for point in points if point.trial == best), None),
            failures=read_failures(folder),
        )

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        """A point, or a tuple of them for a slice."""
        return self.points[index]

    def __iter__(self) -> Iterator[FrontPoint]:
        return iter(self.points)

    def best(self, *constraints: str) -> FrontPoint:
        """The point that keeps to the constraints and has least of the first objective left.

        That is the least loss within `latency_s<=1e-3`, and the least of the first cost within
        `report_quality_loss<=0.01` or `score>=0.9`.

        Raises:
            SpaceError: not of that form, or an unknown column.
            InfeasibleError: no point of the front keeps to them.
        """
        limits = [self._limit(text) for text in constraints]
        found = [point for point in self.points if all(limit.holds(point) for limit in limits)]
        if not found:
            raise InfeasibleError(
                f"best: no point of the front keeps to {', '.join(constraints)}; the front "
                f"has {', '.join(self._range(limit.column) for limit in limits)}"
            )
        bounded = {limit.column for limit in limits}
        loss, *costs = self.objectives
        if self.metric in bounded or any(name.endswith(QUALITY) for name in bounded):
            left = [name for name in costs if name not in bounded]
        else:
            left = [loss]
        wanted = left[0] if left else loss
        return min(found, key=lambda point: point[wanted])

    def to_pandas(self) -> pd.DataFrame:
        """`front.csv`: one row a point."""
        return _table(self.folder)

    def plot(self) -> go.Figure:
        """The front against the uniform assignments and everything measured (plotly)."""
        from dse.report.figures.pareto import pareto_view  # noqa: PLC0415 (plotly is heavy)
        from dse.run.load import read_run  # noqa: PLC0415

        return pareto_view(read_run(self.folder)).figure

    def save(self, folder: str | Path) -> Path:
        """Copy the whole run folder, with its report; give where it went.

        Raises:
            RunError: something is there already.
        """
        from dse.report import write_report  # noqa: PLC0415 (plotly is heavy)

        target = Path(folder)
        if target.exists():
            raise RunError(f"{target}: exists already; choose another folder")
        write_report(self.folder)
        shutil.copytree(self.folder, target)
        return target

    def _limit(self, text: str) -> _Limit:
        match = LIMIT.fullmatch(text)
        if match is None:
            raise SpaceError(f"best: expected '<column><=<number>' or '>=', got {text!r}")
        columns = list(dict.fromkeys(name for point in self.points for name in point.values))
        if match["column"] not in columns:
            raise SpaceError(
                f"best: unknown column {match['column']!r}{nearest(match['column'], columns)} "
                f"(known: {', '.join(columns)})"
            )
        return _Limit(
            column=match["column"], at_least=match["sense"] == ">=", number=float(match["number"])
        )

    def _range(self, column: str) -> str:
        values = [point[column] for point in self.points]
        return f"{column} from {min(values):.4g} to {max(values):.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    column: str
    at_least: bool
    number: float

    def holds(self, point: FrontPoint) -> bool:
        """Whether a point keeps to it."""
        value = point.values.get(self.column, math.nan)
        return value >= self.number if self.at_least else value <= self.number


def _numbers(row: Mapping[Any, Any]) -> dict[str, float]:
    """What was measured: no names, no empty cells."""
    found = {
        str(name): float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and name not in ("trial", "tied")
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _table(folder: Path) -> pd.DataFrame:
    path = folder / "front.csv"
    if not path.exists():
        raise RunError(f"{folder}: has no front.csv; is it a finished run?")
    return pd.read_csv(path)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; is {path.parent} a finished run?") from None
