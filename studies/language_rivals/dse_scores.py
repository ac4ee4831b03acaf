"""Scores of `dse` for the same menu as AutoScheme's, on the same windows.

`python -m studies.language_rivals.dse_scores WORK` writes WORK/run/sensitivity.csv, as the first
stage of `dse search` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dse.explore.measure.session import prepare
from dse.sensitivity.score import score
from dse.space.load import parse_space
from dse.zoo.split import Split, Splits
from studies.language_rivals import text
from studies.language_rivals.score import note_spent

SPACE = """
model: {work}/relabelled.onnx
data: {{source: {work}/tokens.npz, calibration: 8, search: 8, report: 8, batch: 4}}
scenario: {{phases: {{call: {{share: 1, dims: {{batch: 1, sequence: 128}}}}}}}}
targets: [{{name: cpu, device: xeon-8480, runtime: torch-cpu}}]
matrices: apart
candidates:
  - {{match: {{kind: attention}}, use: [bf16]}}
  - {{match: {{role: head}}, use: [bf16]}}
  - match: {{}}
    use: [{{name: int8, weight: int8_g64}}, {{name: int4, weight: int4_g64}}]
objectives: [quality_loss, weight_bytes]
"""


def splits(work: Path) -> Splits:
    """The 16 windows that tools see, and what follows them for a front."""

    def split(windows: NDArray[np.int64]) -> Split:
        return Split(inputs={"tokens": windows[:, :-1]}, labels=windows[:, 1:], kind="tokens")

    return Splits(
        calibration=split(text.split(work, "calibration")),
        search=split(text.split(work, "search")),
        report=split(text.continued(work, "calibration")),
    )


def main() -> None:
    """Every choice scored by one backward pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    space = parse_space(SPACE.format(work=work), origin="language_rivals")
    session = prepare(space, origin="language_rivals", folder=work, splits=splits(work))
    problem = session.design.problem
    table = score(session.evaluator, problem, "gradient", samples=text.SEARCH)
    (work / "run").mkdir(exist_ok=True)
    (work / "run" / "sensitivity.csv").write_text(table.to_csv(problem))
    note_spent(work, "dse")


if __name__ == "__main__":
    main()
