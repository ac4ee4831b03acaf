"""The front of a search over methods for programs."""

from __future__ import annotations

import json
from pathlib import Path

from dse.run import files
from dse.run.training_run import read_training_run


def training_front(run_dir: Path) -> list[dict[str, object]]:
    """The front as JSON-able objects, fastest step first: columns, choices, the method.

    Raises:
        RunError: the folder is missing, is no such run, or is torn.
    """
    run = read_training_run(run_dir)
    content = json.loads((run_dir / files.FRONT_ASSIGNMENTS).read_text(encoding="utf-8"))
    methods = {one["trial"]: one["method"] for one in content}
    best = run.recommended.trial if run.recommended else None
    return [
        {
            "trial": point.trial,
            "name": point.name,
            "source": point.source,
            "recommended": point.trial == best,
            **point.columns,
            "choices": dict(run.choices.get(point.trial, {})),
            "method": methods[point.trial],
        }
        for point in run.front
    ]
