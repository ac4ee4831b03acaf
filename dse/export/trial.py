"""A trial of a run folder as a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dse.errors import ExportError, RunError
from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.quantizers import bound
from dse.execute.weights.calibrate import load_calibration
from dse.execute.weights.learn import FILE as WEIGHTS_FILE
from dse.execute.weights.learn import WeightStates
from dse.export.qdq import export_qdq
from dse.files import write_atomically
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import Model, open_model
from dse.run import folder as run_folder
from hwmodels.formats import catalog

Target = Literal["onnx-qdq", "recipe"]
TARGETS: tuple[Target, ...] = ("onnx-qdq", "recipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One assignment of a run, as its folder keeps it."""

    trial: int
    assignment: Mapping[str, object]
    """The JSON object."""


def export_trial(folder: Path, *, trial: int | None, target: Target, out: Path) -> int:
    """Writes a trial of a run's front for a runtime.

    Scales and learned weights are those that the run measured with.

    Args:
        folder: the run folder.
        trial: a number of the front; the recommended one by default.
        target: `recipe` is the assignment as neutral JSON, `onnx-qdq` a model with Q/DQ nodes.
        out: the file to write.

    Returns:
        The trial that was exported.

    Raises:
        RunError: no run folder, no such trial on its front, or another model by now.
        ExportError: what the target cannot express.
        WriteError: the file cannot be written.
    """
    chosen = chosen_trial(folder, trial)
    if target == "recipe":
        write_atomically(out, json.dumps(chosen.assignment, indent=1) + "\n")
        return chosen.trial
    model = model_of(folder)
    graph = model.graph
    if not graph.has_weights:
        raise ExportError(f"{model.name}: has no weights; export the recipe instead")
    assignment = from_json(json.dumps(chosen.assignment), graph, catalog.quantizer)
    _export(folder, Program(graph), assignment, out)
    return chosen.trial


def chosen_trial(folder: Path, trial: int | None) -> Chosen:
    """A trial of the front; the recommended one if none is named.

    Raises:
        RunError: no run folder, or no such trial on its front.
    """
    if trial is None:
        content = run_folder.read_json(folder / run_folder.RECOMMENDED)
        return _chosen(folder, content)
    path = folder / run_folder.FRONT_ASSIGNMENTS
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path}: no such file; is {folder} the folder of a finished run?"
        ) from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error
    found = {entry.trial: entry for entry in (_chosen(folder, content) for content in entries)}
    if trial not in found:
        known = ", ".join(str(number) for number in sorted(found))
        raise RunError(f"{folder}: trial {trial} is not on the front; expected one of {known}")
    return found[trial]


def _chosen(folder: Path, content: Mapping[str, object]) -> Chosen:
    number, assignment = content.get("trial"), content.get("assignment")
    if not isinstance(number, int) or not isinstance(assignment, Mapping):
        raise RunError(f"{folder}: a trial without number or assignment; run the search again")
    return Chosen(trial=number, assignment=assignment)


def model_of(folder: Path) -> Model:
    """The model of a run.

    Raises:
        RunError: it is not where it was, or it is another one by now.
    """
    manifest = run_folder.read_json(folder / run_folder.MANIFEST)
    space = manifest.get("space")
    if not isinstance(space, Mapping) or "model" not in space:
        raise RunError(f"{folder / run_folder.MANIFEST}: names no model; run the search again")
    origin = Path(str(manifest.get("space_file", "")))
    beside = origin.parent if origin.suffix in (".yaml", ".yml") else Path()
    model = open_model(str(space["model"]), folder=beside)
    if model.graph.digest != manifest.get("model_digest"):
        raise RunError(f"{folder}: was made with another {space['model']}; search that one again")
    return model


def _export(folder: Path, program: Program, assignment: Assignment, out: Path) -> None:
    state = folder / run_folder.STATE
    by_key = Analysis(program.graph).by_key
    weights = WeightStates(program, by_key, _missing(folder))
    if (state / WEIGHTS_FILE).exists():
        weights.load(state)
    calibration = load_calibration(state)
    export_qdq(program, bound(assignment, by_key, calibration, weights), out)


def _missing(folder: Path) -> Callable[[], Iterable[Mapping[str, Value]]]:
    """Calibration data, which an export does not have: the run's state must hold everything."""

    def fail() -> Iterable[Mapping[str, Value]]:
        raise RunError(
            f"{folder / run_folder.STATE}: does not hold what calibration learned; resume the "
            "search to write it"
        )

    return fail
