"""Prices the enumerated spaces anew: measured losses stay, costs are those of today's cost model.

`python -m studies.search_benchmark.reprice OUT` writes all tables to OUT, for `load(name, OUT)`;
`--in-place` replaces those of `data/`, and with them what studies on them say.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import dse
import hwmodels
from dse.explore.problem.design import Design, open_design
from dse.space.load import load_space
from studies.search_benchmark.benchmark import DATA, NAMES

COLUMNS = ("latency_s", "energy_j", "weight_bytes", "peak_bytes")
PRICED = ("sum/", "fixed/", "cost/")
"""What keys of a table that hold costs begin with."""
SPACES = Path(__file__).parent / "spaces"


def cost_model_digest() -> str:
    """Twelve digits that change with any file of the cost model, code or data."""
    root = Path(hwmodels.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def costs(design: Design, quantities: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Every column, as a sum over variables where it is one, else whole; and by which model."""
    found: dict[str, np.ndarray] = {}
    sizes = [len(variable.choices) for variable in design.problem.variables]
    points = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    columns = [f"{t.label}.{column}" for t in design.costs.targets for column in quantities]
    for column in columns:
        if design.costs.is_additive(column):
            parts = design.costs.additive(column)
            kept = [part for part in parts if len(part) > 1]
            found[f"sum/{column}"] = np.array(kept)
            constant = sum(float(part[0]) for part in parts if len(part) == 1)
            found[f"fixed/{column}"] = np.array(design.costs.fixed(column) + constant)
        else:
            whole = design.costs.totals(points, [column])[:, 0]
            found[f"cost/{column}"] = whole.astype(np.float32)
    return {
        "columns": np.array(columns),
        "cost_model": np.array(f"dse {dse.__version__}, hwmodels {cost_model_digest()}"),
        **found,
    }


def repriced(
    name: str, design: Design, quantities: Sequence[str] = COLUMNS
) -> dict[str, np.ndarray]:
    """The content of a stored table with the costs of today.

    Args:
        name: of the table.
        design: its space, opened.
        quantities: which costs; all take a minute a table, those that are sums a second.
    """
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as archive:
        kept = {key: archive[key] for key in archive.files if not key.startswith(PRICED)}
    return {**kept, **costs(design, quantities)}


def main() -> None:
    """Prices all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("out", type=Path, nargs="?")
    where.add_argument("--in-place", action="store_true")
    arguments = parser.parse_args()
    out = DATA if arguments.in_place else arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = SPACES / f"{name}.yaml"
        design = open_design(load_space(path), origin=str(path), folder=path.parent)
        np.savez_compressed(out / f"{name}.npz", **repriced(name, design))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
