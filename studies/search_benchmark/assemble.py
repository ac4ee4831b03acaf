"""Joins measured losses with costs and single-choice sensitivities: `data/<space>.npz`.

`python -m studies.search_benchmark.assemble TABLES`; `enumerate_space` wrote TABLES.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dse.explore.measure.session import Session
from dse.sensitivity.gradient import gradient_scores
from dse.space.problem import Variable
from studies.search_benchmark.benchmark import DATA, NAMES
from studies.search_benchmark.prepare import session_of
from studies.search_benchmark.reprice import costs


def searched(session: Session) -> tuple[Variable, ...]:
    """Variables with more than one choice."""
    return tuple(v for v in session.design.problem.variables if len(v.choices) > 1)


def names(session: Session) -> dict[str, np.ndarray]:
    """Variables and choices."""
    variables = searched(session)
    return {
        "variables": np.array([variable.name for variable in variables]),
        **{f"choices/{v.name}": np.array([c.name for c in v.choices]) for v in variables},
    }


def sensitivities(session: Session) -> dict[str, np.ndarray]:
    """Scores of single choices, direct with the effort that each took, and by gradient."""
    evaluator = session.evaluator
    unit = evaluator.forward_macs("search")
    alone, share = [], []
    for index, variable in enumerate(session.design.problem.variables):
        if len(variable.choices) == 1:
            continue
        losses, efforts = [], []
        for choice in range(len(variable.choices)):
            before = evaluator.macs
            losses.append(evaluator.measure(session.design.problem.changed(index, choice)).loss)
            efforts.append((evaluator.macs - before) / unit)
        alone.append(losses)
        share.append(efforts)
    gradient = gradient_scores(evaluator, session.design.problem, split="search")
    scored = [losses for losses in gradient.losses(session.design.problem) if len(losses) > 1]
    return {
        "alone": np.array(alone),
        "forward_share": np.array(share),
        "gradient": np.array(scored),
    }


def main() -> None:
    """Writes every space whose table is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    for name in NAMES:
        path = arguments.tables / f"{name}.npz"
        if not path.exists():
            continue
        session = session_of(name)
        with np.load(path, allow_pickle=False) as archive:
            measured = {key: archive[key] for key in archive.files if key != "report.samples"}
        np.savez_compressed(
            DATA / f"{name}.npz",
            **measured, **names(session), **costs(session.design), **sensitivities(session),  # type: ignore[arg-type]
        )  # fmt: skip


if __name__ == "__main__":
    main()
