"""The problem of a space on its targets: what else follows the choices of its products.

A runtime with Q/DQ at the tensor has no 16-bit stream beside its integers: sums, pools and the
results of the network are stored in the formats that are chosen for products, and priced so. And
where all runtimes read one copy of a table, its look-up takes the choice of its product along.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.errors import SpaceError
from dse.graph.patterns.analysis import Analysis
from dse.space.build import build_problem
from dse.space.platform import platform_of
from dse.space.problem import Problem
from dse.space.schema import APART, Space
from hwmodels.devices.device import Device

FUSED = "query, key and value; gate and up"
"""Products that read one input, for a message."""


def targeted_problem(
    space: Space,
    analysis: Analysis,
    folder: Path,
    *,
    origin: str = "space",
    devices: Mapping[str, Device] | None = None,
) -> Problem:
    """The decision variables of a model under a space, with all that follows them.

    Args:
        space: candidates, ties and targets.
        analysis: of the model that quality is measured on.
        folder: what relative device and runtime files are relative to.
        origin: what errors call the space.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.

    Raises:
        SpaceError: candidates or ties that do not fit the model.
        HardwareError: unknown or wrong devices and runtimes.
    """
    runtimes = [platform_of(target, folder, devices)[1] for target in space.targets]
    fusing = [one.name for one in runtimes if one.fuses_shared_input]
    if space.matrices == APART and fusing:
        raise SpaceError(
            f"{origin}: matrices: {fusing[0]} executes products of one input ({FUSED}) as one, in "
            f"one format; expected 'fused', got {APART!r}"
        )
    stored = analysis.stored if any(one.stores_tensors for one in runtimes) else {}
    problem = build_problem(space, analysis.regions, origin=origin, stored=stored)
    shared = all(one.shares_tables for one in runtimes)
    return problem.sharing(analysis.ties) if shared else problem
