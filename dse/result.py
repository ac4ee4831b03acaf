"""A finished search for programs: its front, read from the run folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dse.errors import InfeasibleError, RunError, SpaceError, nearest
from dse.run.files import FRONT
from dse.run.read import read_failures, read_front, read_run
from dse.space.constraint import Constraint, parse_constraint

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from dse.export.trial import Exported

QUALITY = "quality_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One assignment of a front."""

    trial: int
    name: str
    """The scheme of a uniform assignment, else empty."""
    values: Mapping[str, float]
    """Every number of `front.csv` by its column; what was not measured is missing."""
    choices: Mapping[str, str]
    """The choice of every variable."""
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
        run = read_run(Path(folder))
        assignments = {entry.trial: entry.assignment for entry in read_front(run.folder)}
        points = tuple(
            FrontPoint(
                trial=point.trial,
                name=point.name,
                values=point.columns,
                choices=run.choices[point.trial],
                assignment=assignments[point.trial],
            )
            for point in run.front
        )
        best = run.recommended
        return cls(
            folder=run.folder,
            objectives=run.manifest.objectives,
            metric=run.manifest.metric,
            points=points,
            recommended=next((p for p in points if best and p.trial == best.trial), None),
            failures=read_failures(run.folder),
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
        found = [
            point for point in self.points if all(limit.holds(point.values) for limit in limits)
        ]
        if not found:
            raise InfeasibleError(
                f"best: no point of the front keeps to {', '.join(constraints)}; the front "
                f"has {', '.join(self._range(limit.column) for limit in limits)}"
            )
        bounded = {limit.column for limit in limits}
        loss = self.objectives[0]
        costs = [name for name in self.objectives if not name.endswith(QUALITY)]
        if self.metric in bounded or any(name.endswith(QUALITY) for name in bounded):
            left = [name for name in costs if name not in bounded]
        else:
            left = [loss]
        wanted = left[0] if left else loss
        return min(found, key=lambda point: point[wanted])

    def to_pandas(self) -> pd.DataFrame:
        """`front.csv`: one row a point."""
        return pd.read_csv(self.folder / FRONT)

    def plot(self) -> go.Figure:
        """The front against the uniform assignments and everything measured (plotly)."""
        from dse.report.figures.pareto import pareto_view  # noqa: PLC0415 (plotly is heavy)

        return pareto_view(read_run(self.folder)).figure

    def export(
        self, target: str, path: str | Path, *, trial: int | None = None, verify: bool = False
    ) -> Exported:
        """Write a point for a runtime: `dse export`.

        Args:
            target: `onnx-qdq`, `recipe`, or that of an installed package.
            path: the file or folder to write.
            trial: of which point; the recommended one by default.
            verify: whether those who will read it are asked to, and their numbers compared.

        Raises:
            ExportError: what the target cannot express, with sites and what would work.
            RunError: no such point.
            WriteError: it cannot be written.
        """
        from dse.export import export_trial  # noqa: PLC0415 (onnx and torch are heavy)

        return export_trial(self.folder, trial=trial, target=target, out=Path(path), verify=verify)

    def save(self, folder: str | Path) -> Path:
        """Copy the whole run folder, with its report; give where it went.

        Raises:
            RunError: something is there already.
        """
        from dse.report.html import write_report  # noqa: PLC0415 (plotly is heavy)

        target = Path(folder)
        if target.exists():
            raise RunError(f"{target}: exists already; choose another folder")
        write_report(self.folder)
        shutil.copytree(self.folder, target)
        return target

    def _limit(self, text: str) -> Constraint:
        limit = parse_constraint(text, origin="best")
        columns = list(dict.fromkeys(name for point in self.points for name in point.values))
        if limit.column not in columns:
            raise SpaceError(
                f"best: unknown column {limit.column!r}{nearest(limit.column, columns)} "
                f"(known: {', '.join(columns)})"
            )
        return limit

    def _range(self, column: str) -> str:
        values = [point[column] for point in self.points]
        return f"{column} from {min(values):.4g} to {max(values):.4g}"
