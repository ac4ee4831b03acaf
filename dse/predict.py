"""What a model costs on a device: `dse predict`, without torch and without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.errors import AssignmentError
from dse.graph.assignment import Assignment
from dse.graph.assignment_json import from_json
from dse.graph.graph import Graph
from dse.graph.lower import lower
from dse.graph.regions import regions
from dse.graph.site import Region
from dse.space.build import searched_sites
from dse.space.operands import OPERAND_OF_ROLE
from dse.space.uniform import WIDE, uniform_assignment
from hwmodels import catalog
from hwmodels.cost import CostEstimate
from hwmodels.device_file import load_device
from hwmodels.formats import Quantizer
from hwmodels.runtime_file import load_runtime
from hwmodels.table import CostTable, Phase
from hwmodels.work import OperandName


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The cost of one model in one format on one device."""

    device: str
    runtime: str
    format: str
    """Scheme, format, or `assignment`."""
    cost: CostEstimate
    """Parts: one a region."""
    validated: bool
    """Whether the device's predictions were compared with measurements."""
    note: str


def predict(
    graph: Graph,
    devices: Sequence[str],
    formats: Sequence[str],
    *,
    dims: Mapping[str, int],
    runtime: str = "torch-eager",
    assignment: Assignment | None = None,
) -> tuple[Prediction, ...]:
    """Predictions for every device and format, devices outermost.

    Args:
        graph: the model; weights are not needed.
        devices: device names or files.
        formats: schemes or formats; none and no assignment means 16 bits.
        dims: values of the symbolic dimensions.
        runtime: a runtime name or file.
        assignment: priced beside the formats.

    Raises:
        GraphError: symbolic dimensions that `dims` does not bind.
        HardwareError: unknown devices, runtimes or formats.
        AssignmentError: sites that the model does not have.
    """
    every = regions(graph)
    work = lower(graph, every, dims)
    lowered = {region.name for region in work.regions}
    found = [region for region in every if region.name in lowered]
    choices: dict[str, dict[str, Mapping[OperandName, Quantizer]]] = {
        name: _of_assignment(found, uniform_assignment(found, name))
        for name in formats or (() if assignment else (WIDE,))
    }
    if assignment is not None:
        choices["assignment"] = _of_assignment(found, assignment)
    predictions = []
    driver = load_runtime(runtime)
    for name in devices:
        device = load_device(name)
        for label, by_region in choices.items():
            table = CostTable.build(
                (Phase(name="call", share=1.0, work=work),),
                {region: (quantizers,) for region, quantizers in by_region.items()},
                device,
                driver,
            )
            predictions.append(
                Prediction(
                    device=device.name,
                    runtime=driver.name,
                    format=label,
                    cost=table.total(dict.fromkeys(by_region, 0)),
                    validated=bool(device.validated),
                    note=device.note,
                )
            )
    return tuple(predictions)


def _of_assignment(
    found: Sequence[Region], assignment: Assignment
) -> dict[str, Mapping[OperandName, Quantizer]]:
    """Operands by region; sites of one role in one region must agree, as one kernel runs them.

    Raises:
        AssignmentError: they do not.
    """
    given = assignment.as_dict()
    by_region: dict[str, Mapping[OperandName, Quantizer]] = {}
    for region in found:
        chosen: dict[OperandName, Quantizer] = {}
        for site in searched_sites(region):
            quantizer = given.get(site.key)
            if quantizer is None:
                continue
            operand = OPERAND_OF_ROLE[site.role]
            if chosen.setdefault(operand, quantizer) != quantizer:
                raise AssignmentError(
                    f"{site.key}: is {quantizer.name}, but another {site.role} of region "
                    f"{region.name} is {chosen[operand].name}; the runtime executes the region "
                    "as one kernel, so give them the same format"
                )
        by_region[region.name] = chosen
    return by_region


def load_assignment(path: Path, graph: Graph) -> Assignment:
    """The assignment of a JSON file.

    Raises:
        AssignmentError: no such file, not JSON, or it does not fit the model.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AssignmentError(f"{path}: cannot be read: {error.strerror}") from error
    return from_json(text, graph, catalog.quantizer)
