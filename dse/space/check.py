"""The size and sense of a space, before anything is run: `dse check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dse.data import code_of, is_code
from dse.model import Model
from dse.plugins import code_file
from dse.space.hardware import HardwareSpace, hardware_of, with_hardware
from dse.space.load import load_space
from dse.space.opened import searched_model, with_ranks
from dse.space.problem import Problem
from dse.space.schema import Space
from dse.space.targeted import targeted_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSummary:
    """A space that can be searched."""

    space: Space
    model: Model
    problem: Problem
    code: tuple[str, ...]
    """Imports of a search beside `dse`: the file, or the module that is installed."""
    hardware: HardwareSpace | None = None
    """Parameters of a device that vary."""

    @property
    def site_count(self) -> int:
        """Sites that some choice names."""
        return sum(len(variable.sites) for variable in self.problem.variables)

    @property
    def tied(self) -> dict[str, tuple[str, ...]]:
        """Variables that hold more than one region."""
        return {v.name: v.regions for v in self.problem.variables if len(v.regions) > 1}


def describe(path: str | Path) -> SpaceSummary:
    """Load a space and its model, and build the decision variables.

    Raises:
        DseError, HardwareError: whatever of it cannot be used.
    """
    return summarised(load_space(path), origin=str(path), folder=Path(path).parent)


def summarised(space: Space, *, origin: str, folder: Path) -> SpaceSummary:
    """A space with its model and decision variables.

    Args:
        space: from a file, or drafted for a model.
        origin: names it in errors.
        folder: what its paths are relative to.

    Raises:
        DseError, HardwareError: whatever of it cannot be used.
    """
    model = searched_model(space, folder)
    space = with_ranks(space, model.graph)
    hardware = hardware_of(space, folder, origin=origin)
    problem = with_hardware(
        targeted_problem(space, model.analysis, folder, origin=origin), hardware, origin=origin
    )
    return SpaceSummary(
        space=space,
        model=model,
        problem=problem,
        code=foreign_code(space, folder),
        hardware=hardware,
    )


def foreign_code(space: Space, folder: Path) -> tuple[str, ...]:
    """Other people's code that a search of a space imports. Nothing is imported here.

    Raises:
        DataError: data of code that is neither installed nor in the space's folder.
        PluginError: a search method of such code.
    """
    found: list[str] = []
    source = space.data.source
    if is_code(source, folder):
        found.append(f"{source} ({code_of(source, folder) or 'installed'})")
    if ":" in space.search.method:
        file = code_file(space.search.method, folder)
        found.append(f"{space.search.method} ({file or 'installed'})")
    return tuple(found)
