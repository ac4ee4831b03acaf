"""Writes what `enumerate_space` needs of a space: feeds, calibration, choices by site.

`python -m studies.search_benchmark.prepare OUT` prepares every space of `spaces/`; `--variables 3`
keeps the last three variables only, for a trial.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dse.execute.weights.calibrate import Calibration, Statistics, save_calibration
from dse.explore.measure.session import Session, prepare
from dse.space.load import load_space

HERE = Path(__file__).parent
SPACES = ("byte-gpt-depth", "byte-gpt-role", "fashion-resnet")


def session_of(name: str, *, compute: str = "cpu") -> Session:
    """The prepared search of a benchmark's space."""
    path = HERE / "spaces" / f"{name}.yaml"
    session = prepare(load_space(path), origin=str(path), folder=path.parent, compute=compute)
    session.evaluator.calibration = as_measured(session.evaluator.calibration)
    return session


def as_measured(calibration: Calibration) -> Calibration:
    """The calibration that the stored tables were measured with: samples alone, without tails.

    Ranges of least error see both extrema as two values of the sample (decision 842).
    """
    nothing = torch.zeros(0)
    cut: dict[int, Statistics] = {}
    for found in calibration.statistics.values():
        values = found.values
        cut[id(found)] = replace(
            found, sample=values, count=values.numel(), lowest=nothing, highest=nothing
        )
    return Calibration(
        statistics={key: cut[id(found)] for key, found in calibration.statistics.items()}
    )


def write(session: Session, out: Path, *, variables: int | None = None) -> None:
    """The folder of one space."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = session.design.problem.variables[-(variables or 0) :]
    described = [
        {
            "name": variable.name,
            "choices": [
                {
                    "name": choice.name,
                    "sites": {
                        site.key: choice.quantizers[site.role].name
                        for site in variable.sites
                        if site.role in choice.quantizers
                    },
                }
                for choice in variable.choices
            ],
        }
        for variable in chosen
    ]
    path = session.design.model.graph.path
    assert path is not None
    model = str(Path(path).resolve().relative_to(HERE.parents[1]))
    (out / "space.json").write_text(json.dumps({"model": model, "variables": described}))
    save_calibration(session.evaluator.calibration, out)
    feeds = {
        f"{split}.{name}": values
        for split in ("search", "report")
        for name, values in getattr(session.evaluator.splits, split).inputs.items()
    }
    np.savez_compressed(out / "feeds.npz", **feeds)


def main() -> None:
    """Prepares all spaces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variables", type=int)
    arguments = parser.parse_args()
    for name in SPACES:
        write(session_of(name), arguments.out / name, variables=arguments.variables)


if __name__ == "__main__":
    main()
