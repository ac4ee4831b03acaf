"""Roundings learned at the end of a block beside GPTQ, on fashion-resnet with int8 activations.

`python -m studies.vision_recipes.blockwise` writes `results/blockwise.csv` (two CPU-minutes).
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dse.evaluate.setup import build_evaluator
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.space.schema import Data
from hwmodels.formats.catalog import quantizer
from hwmodels.work.role import region_role
from studies.weight_methods.run import assignment_of

RESULTS = Path(__file__).parent / "results"
NAME = "fashion-resnet"
DATA = Data(source=f"zoo:{NAME}", calibration=64, search=250, report=250, batch=16)
ACTIVATION = "int8:static"


def rows() -> Iterator[dict[str, object]]:
    """A row a width and method; forward passes are of the 250 images."""
    graph = open_model(f"zoo:{NAME}").graph
    found = [r for r in Analysis(graph).regions if not region_role(r.role).is_kept]
    found = [region for region in found if any(site.role == "weight" for site in region.sites)]
    sites = {site.key: site for region in found for site in region.sites}
    pairs = [(s.key, quantizer(ACTIVATION)) for s in sites.values() if s.role == "activation"]
    evaluator = build_evaluator(Analysis(graph), DATA, sites, pairs)
    for bits in (4, 3):
        for method in ("gptq", "blockwise"):
            chosen = assignment_of(found, f"int{bits}_channel:{method}", ACTIVATION)
            before, started = evaluator.weights.macs, seconds()
            quality = evaluator.measure(chosen, "search")
            losses = np.array(quality.losses)
            spent = (evaluator.weights.macs - before) / evaluator.forward_macs("search")
            yield {
                "model": NAME, "bits": bits, "method": method, "loss": losses.mean(),
                "stderr": losses.std() / np.sqrt(len(losses)), "median": np.median(losses),
                "forward_equivalents": round(spent, 1),
                "cpu_seconds": round(seconds() - started),
            }  # fmt: skip


def seconds() -> float:
    """Of this process's CPU time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def main() -> None:
    """Measures and writes the table."""
    torch.set_num_threads(1)
    table = pd.DataFrame(rows())
    table.to_csv(RESULTS / "blockwise.csv", index=False, float_format="%.5g")
    print(table)


if __name__ == "__main__":
    main()
