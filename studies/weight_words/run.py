"""Words behind a weight in a 4-bit float: searched ranges without and with Four Over Six, GPTQ.

`python -m studies.weight_words.run` writes `results/network.csv`: byte-gpt.
"""

from __future__ import annotations

import csv
import math
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from dse.evaluate.evaluator import Evaluator
from dse.explore.measure.session import prepare
from dse.graph.ir.assignment import Assignment
from dse.space.load import parse_space
from hwmodels.formats.catalog import quantizer

HERE = Path(__file__).parent
RANGES = "dse.numerics.scales.E2M1_TARGETS"
"""The two targets, which a test run sets to one."""
SPACE = """
model: zoo:byte-gpt
data: {source: zoo:byte-gpt, calibration: 16, search: 2, report: 24, sequence: 256}
scenario: {phases: {call: {share: 1, dims: {batch: 1, sequence: 256}}}}
targets: [{device: h100-sxm, runtime: free}]
candidates: [{match: {}, use: [bf16]}]
objectives: [quality_loss, weight_bytes]
"""
WEIGHTS = ("nvfp4", "nvfp4:output_mse", "mxfp4", "mxfp4:output_mse", "nvfp4:gptq")


def whole_network() -> list[dict[str, object]]:
    """The loss of byte-gpt with every matrix of its layers in a 4-bit float, paired."""
    session = prepare(
        parse_space(SPACE, origin="weight_words"), origin="weight_words", folder=HERE
    )
    rows: list[dict[str, object]] = []
    plain: dict[str, np.ndarray] = {}
    for name in WEIGHTS:
        for alone in (True, False) if "output_mse" in name else (False,):
            evaluator = session.evaluator
            with mock.patch(RANGES, (6.0, 6.0) if alone else (6.0, 4.0)):
                evaluator.weights._states.clear()
                before, macs = _seconds(), evaluator.macs
                losses = np.array(evaluator.measure(_assignment(evaluator, name), "report").losses)
            base = plain.setdefault(name.split(":")[0], losses)
            saved = base - losses
            rows.append({
                "weights": f"{name}{', 6 alone' if alone else ''}",
                "loss": f"{losses.mean():.5f}", "stderr": f"{_stderr(losses):.5f}",
                "saved": f"{saved.mean():.5f}", "saved_stderr": f"{_stderr(saved):.5f}",
                "forwards": f"{(evaluator.macs - macs) / evaluator.forward_macs('report'):.2f}",
                "cpu_seconds": f"{_seconds() - before:.1f}",
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def _assignment(evaluator: Evaluator, name: str) -> Assignment:
    chosen = quantizer(name)
    sites = (
        site.key for site in evaluator.program.analysis.sites
        if site.role == "weight" and "lm_head" not in site.key and "embed" not in site.key
    )  # fmt: skip
    return Assignment.of(dict.fromkeys(sites, chosen))


def _stderr(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """The table of byte-gpt."""
    torch.set_num_threads(1)
    (HERE / "results").mkdir(exist_ok=True)
    write(HERE / "results" / "network.csv", whole_network())


if __name__ == "__main__":
    main()
