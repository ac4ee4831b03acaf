"""What does a narrower accumulator do to a network, to its circuit, and to the time of emulation?

Usage: python -m studies.accumulators.run [MODEL ...]

Writes `results/MODEL.csv`: loss against full precision, energy and area of the format's
multiply-accumulate over int8's with int32, and the time of an emulated batch over the plain
forward of it (minima of alternating runs, one thread).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from dse.data import Sizes
from dse.evaluate.batches import batches
from dse.evaluate.setup import build_evaluator
from dse.execute.operators.step import Quantize
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.circuits.design import mac_design
from hwmodels.circuits.mac import mac_area_um2, mac_energy_j
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format

RESULTS = Path(__file__).parent / "results"
ACCUMULATORS = {
    "int8": ("int32", "int20:saturate", "int16", "int16:saturate", "int16:spill32", "fp16",
             "fp16:chunk16", "bf16:chunk16"),
    "e4m3": ("fp32", "e8m13:zero:chunk16", "bf16", "bf16:chunk16", "bf16:stochastic:chunk16"),
}  # fmt: skip
NODE_NM, SAMPLES, ROUNDS = 16, 16, 3


def rows(model: str) -> list[dict[str, object]]:
    torch.set_num_threads(1)
    analysis = open_model(model).analysis
    found: list[dict[str, object]] = []
    for name, adding in ACCUMULATORS.items():
        chosen = uniform_assignment(analysis.regions, name, analysis.ties)
        evaluator = build_evaluator(
            analysis,
            Data(source=model, report=SAMPLES),
            analysis.sites_with(key for key, _ in chosen),
            tuple(chosen),
            needed=Sizes(calibration=16, search=0, report=SAMPLES),
        )
        batch = next(batches(evaluator.splits.report, 8, "cpu"))
        for one in (None, *adding):
            evaluator.accumulator = None if one is None else accumulator(one)
            asked = evaluator.accumulator or accumulator("int32" if name == "int8" else "fp32")
            design = mac_design(format(name), accumulated=asked)
            reference = mac_design(format("int8"))
            bound = evaluator.bound(chosen)
            found.append({
                "format": name,
                "accumulator": one or "none asked for",
                "loss": evaluator.measure(chosen, "report").loss,
                "mac_energy": mac_energy_j(design, NODE_NM) / mac_energy_j(reference, NODE_NM),
                "mac_area": mac_area_um2(design, NODE_NM) / mac_area_um2(reference, NODE_NM),
                "time": _ratio(evaluator.program.run, batch.feeds, bound),
            })  # fmt: skip
            print(found[-1], flush=True)
    return found


def _ratio(run, feeds, bound: Mapping[str, Quantize]) -> float:
    least = {"plain": float("inf"), "emulated": float("inf")}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for what, quantizers in (("plain", {}), ("emulated", bound)):
                began = time.perf_counter()
                run(feeds, quantizers)
                least[what] = min(least[what], time.perf_counter() - began)
    return least["emulated"] / least["plain"]


def lines(name: str) -> list[str]:
    """The README's lines of one network, from its results."""
    table = pd.read_csv(RESULTS / f"{name}.csv")
    return [
        f"| {name} | {row.format} | {row.accumulator} | {row.loss:.3g} | {row.mac_energy:.2f} "
        f"| {row.mac_area:.2f} | {row.time:.0f} |"
        for row in table.itertuples()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["zoo:fashion-resnet", "zoo:byte-gpt"])
    for model in parser.parse_args().models:
        table = pd.DataFrame(rows(model))
        name = model.removeprefix("zoo:")
        table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
