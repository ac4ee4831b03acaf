"""What does a narrower accumulator do to a network, to its circuit, and to the time of emulation?

Usage: python -m studies.accumulators.run [--losses] [MODEL ...]

Adds the lines that are missing to `results/MODEL.csv`: loss against full precision with its
standard error, energy and area of the format's multiply-accumulate over int8's with int32 (of a
unit of 16 lanes, and of one lane with an accumulator of its own, as in a systolic array), and the
processor time of an emulated batch over the plain forward (minima of alternating runs, one thread;
left out with `--losses`). Remove a file to measure it again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping
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
NONE = "none asked for"
ACCUMULATORS = {
    "int8": ("int32", "int20:saturate", "int19:saturate", "int18:saturate", "int17:saturate",
             "int16:saturate", "int15:saturate", "int14:saturate", "int20", "int19", "int18",
             "int17", "int16", "int16:spill32", "fp16", "fp16:chunk16", "bf16:chunk16"),
    "e4m3": ("fp32", "e8m13:zero:chunk16", "bf16", "bf16:chunk16", "bf16:stochastic:chunk16",
             "e8m5:chunk16", "fp16", "fp16:chunk16"),
}  # fmt: skip
NODE_NM, SAMPLES, ROUNDS = 16, 16, 3
LANES = {"": 16, "_one_lane": 1}
"""Of the columns of circuits."""


def rows(model: str, known: set[tuple[str, str]], *, timed: bool) -> Iterator[dict[str, object]]:
    """The lines of a model that are not known."""
    torch.set_num_threads(1)
    analysis = open_model(model).analysis
    for name, adding in ACCUMULATORS.items():
        missing = [one for one in (NONE, *adding) if (name, one) not in known]
        if not missing:
            continue
        chosen = uniform_assignment(analysis.regions, name, analysis.ties)
        evaluator = build_evaluator(
            analysis,
            Data(source=model, report=SAMPLES),
            analysis.sites_with(key for key, _ in chosen),
            tuple(chosen),
            needed=Sizes(calibration=16, search=0, report=SAMPLES),
        )
        batch = next(batches(evaluator.splits.report, 8, "cpu"))
        for one in missing:
            evaluator.accumulator = None if one == NONE else accumulator(one)
            quality = evaluator.measure(chosen, "report")
            bound = evaluator.bound(chosen)
            yield {
                "format": name,
                "accumulator": one,
                "loss": quality.loss,
                "stderr": quality.stderr,
                **circuits(name, one),
                "time": _ratio(evaluator.program.run, batch.feeds, bound) if timed else None,
            }


def circuits(name: str, summed: str) -> dict[str, float]:
    """Energy and area of a multiply-accumulate over int8's with int32."""
    default = "int32" if name == "int8" else "fp32"
    asked = accumulator(default if summed == NONE else summed)
    found: dict[str, float] = {}
    for suffix, lanes in LANES.items():
        design = mac_design(format(name), accumulated=asked, lanes=lanes)
        reference = mac_design(format("int8"), lanes=lanes)
        for what, of in (("mac_energy", mac_energy_j), ("mac_area", mac_area_um2)):
            found[what + suffix] = of(design, NODE_NM) / of(reference, NODE_NM)
    return found


def _ratio(run, feeds, bound: Mapping[str, Quantize]) -> float:
    least = {"plain": float("inf"), "emulated": float("inf")}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for what, quantizers in (("plain", {}), ("emulated", bound)):
                began = time.process_time()
                run(feeds, quantizers)
                least[what] = min(least[what], time.process_time() - began)
    return least["emulated"] / least["plain"]


def lines(name: str) -> list[str]:
    """The README's lines of one network, from its results."""
    table = pd.read_csv(RESULTS / f"{name}.csv")
    return [
        f"| {name} | {row.format} | {row.accumulator} | {row.loss:.3g} | {row.mac_energy:.2f} "
        f"| {row.mac_area:.2f} | {row.mac_energy_one_lane:.2f} | {row.mac_area_one_lane:.2f} "
        f"| {_rounded(row.time)} |"
        for row in table.itertuples()
    ]


def _rounded(ratio: object) -> str:
    return f"{ratio:.0f}" if isinstance(ratio, float) and not math.isnan(ratio) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["zoo:fashion-resnet", "zoo:byte-gpt"])
    parser.add_argument("--losses", action="store_true", help="no times")
    given = parser.parse_args()
    for model in given.models:
        path = RESULTS / f"{model.removeprefix('zoo:')}.csv"
        table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["format"])
        pairs = zip(table.format, table.get("accumulator", []), strict=True)
        for row in rows(model, set(pairs), timed=not given.losses):
            print(row, flush=True)
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            _sorted(table).to_csv(path, index=False, float_format="%.4g")


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """Lines in the order of `ACCUMULATORS`."""
    order = [(name, one) for name, adding in ACCUMULATORS.items() for one in (NONE, *adding)]
    places = [order.index(pair) for pair in zip(table.format, table.accumulator, strict=True)]
    return table.iloc[sorted(range(len(places)), key=places.__getitem__)]


if __name__ == "__main__":
    main()
