"""The front for programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.run.read import read_run

Value = str | int | float | bool | None | Mapping[str, str]


def front_rows(run_dir: Path) -> list[dict[str, Value]]:
    """The front as JSON-able objects, cheapest first: the columns of `front.csv` and the choices.

    Raises:
        RunError: the folder is missing, is no run, or is torn.
    """
    run = read_run(run_dir)
    return [
        {
            "trial": point.trial,
            "name": point.name,
            "source": point.source,
            "recommended": run.is_recommended(point),
            "tied": point.tied,
            **point.columns,
            "choices": run.choices.get(point.trial, {}),
        }
        for point in run.front
    ]
