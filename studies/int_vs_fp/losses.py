"""Losses of the formats on networks of the zoo: `python -m studies.int_vs_fp.losses [MODEL ...]`.

Adds the lines that are missing to `results/losses.csv`: divergence from full precision in nats a
position, a number a sample, with every product of a weight in the format, both operands, and
everything else (attention's own products, embeddings) in full precision.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from dse.data import Sizes
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Region
from dse.model import open_model
from dse.space.schema import Data
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator
from studies.int_vs_fp.formats import Entry, entries

LOSSES = Path(__file__).parent / "results" / "losses.csv"
SAMPLES = {"byte-gpt": 16, "fashion-resnet": 64}


def assignment_of(entry: Entry, regions: tuple[Region, ...]) -> Assignment:
    """Both operands of every product of a weight in a format."""
    sites = {}
    for region in regions:
        if not any(site.role == "weight" for site in region.sites):
            continue
        across = "tensor" if region.kind == "conv2d" else "token"
        for site in region.sites:
            if site.role in ("weight", "activation"):
                granularity = "channel" if site.role == "weight" else across
                sites[site.key] = catalog.quantizer(entry.quantizer(granularity))
    return Assignment.of(sites)


def measure(model: str, known: set[tuple[str, str]]) -> None:
    """Adds the lines of a model that are not known; each is written as soon as it is there."""
    torch.set_num_threads(1)
    analysis = open_model(f"zoo:{model}").analysis
    samples = SAMPLES[model]
    evaluator: Evaluator | None = None
    for entry in entries():
        if (model, entry.name) in known:
            continue
        chosen = assignment_of(entry, analysis.regions)
        if evaluator is None:
            evaluator = build_evaluator(
                analysis,
                Data(source=f"zoo:{model}", report=samples),
                analysis.by_key,
                (),
                needed=Sizes(calibration=1, search=0, report=samples),
            )
        evaluator.accumulator = accumulator(entry.accumulator) if entry.accumulator else None
        losses = evaluator.measure(chosen, "report").losses
        print(model, entry.name, sum(losses) / len(losses), flush=True)
        _add(
            {
                "model": model,
                "format": entry.name,
                "losses": " ".join(f"{float(loss):.4g}" for loss in losses),
            }
        )


def _add(row: dict[str, str]) -> None:
    """A line more in the file."""
    LOSSES.parent.mkdir(exist_ok=True)
    table = read() if LOSSES.exists() else pd.DataFrame()
    pd.concat([table, pd.DataFrame([row])], ignore_index=True).to_csv(LOSSES, index=False)


def read() -> pd.DataFrame:
    """The file."""
    return pd.read_csv(LOSSES)


def measure_missing(model: str) -> None:
    """Measures the formats of a model that the file does not have."""
    table = read() if LOSSES.exists() else pd.DataFrame(columns=["model", "format"])
    measure(model, set(zip(table.model, table.format, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(SAMPLES))
    for model in parser.parse_args().models:
        measure_missing(model)


if __name__ == "__main__":
    main()
