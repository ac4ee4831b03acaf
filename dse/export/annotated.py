"""A trial of a run as annotations of its model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dse.export.trial import chosen_trial, model_of
from dse.graph.annotations import Annotations
from dse.graph.assignment_json import from_json
from dse.model import Model
from dse.run.read import read_space
from dse.space.annotate import annotations_of_space
from hwmodels.formats import catalog


def annotations_of_trial(run: Path, trial: int | None) -> tuple[Model, str, Annotations]:
    """The model of a run, where it lies, and what the run offered and a trial has chosen.

    Args:
        run: the run folder.
        trial: a number of the front; the recommended one by default.

    Raises:
        RunError: no run folder, no such trial on its front, or another model by now.
    """
    chosen = chosen_trial(run, trial)
    model = model_of(run)
    space, folder = read_space(run)
    offered = annotations_of_space(model, space, origin=str(run))
    assignment = from_json(json.dumps(chosen.assignment), model.graph, catalog.quantizer)
    location = space.model if space.model.startswith("zoo:") else str(folder / space.model)
    return model, location, replace(offered, chosen=assignment.as_dict())
