"""What the method behind a 3- or 4-bit weight is worth, and whether it changes the ranking.

`python -m studies.weight_methods.run [methods|ranks]` writes `results/*.csv` (20 minutes on one
core); `efficientnet.py` is the part that needs photographs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.graph.assignment import Assignment
from dse.graph.regions import regions
from dse.graph.site import Region
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import KEPT_ROLES
from hwmodels.catalog import quantizer

RESULTS = Path(__file__).parent / "results"
DATA = {
    "byte-gpt": Data(source="zoo:byte-gpt", calibration=32, search=32, report=64, batch=4),
    "fashion-resnet": Data(
        source="zoo:fashion-resnet", calibration=128, search=250, report=500, batch=50
    ),
}
ACTIVATIONS = {"byte-gpt": None, "fashion-resnet": "int8:static"}
BITS = {"byte-gpt": (4, 3), "fashion-resnet": (4, 3, 2)}
METHODS = {
    "absmax": "absmax:uncorrected",
    "mse": "mse:uncorrected",
    "mse, bias corrected": "mse:bias_corrected",
    "output mse": "output_mse:uncorrected",
    "output mse, bias corrected": "output_mse:bias_corrected",
    "gptq on absmax": "absmax:gptq:uncorrected",
    "gptq on output mse": "output_mse:gptq:uncorrected",
    "gptq on output mse, bias corrected": "output_mse:gptq:bias_corrected",
    "discquant on output mse, bias corrected": "output_mse:discquant:bias_corrected",
}
FORMATS = ("int4_channel", "int4_g128", "int4_g32", "mxfp4", "nvfp4")
"""The 4-bit choices whose ranking is compared."""


def evaluator_of(name: str) -> tuple[Evaluator, tuple[Region, ...]]:
    """An evaluator of a zoo model and the regions that schemes quantize."""
    graph = open_model(f"zoo:{name}").graph
    found = [region for region in regions(graph) if region.role not in KEPT_ROLES]
    found = [region for region in found if any(site.role == "weight" for site in region.sites)]
    sites = {site.key: site for region in found for site in region.sites}
    operand = ACTIVATIONS[name]
    pairs = [
        (site.key, quantizer(operand))
        for site in sites.values()
        if operand is not None and site.role == "activation"
    ]
    return build_evaluator(graph, DATA[name], sites, pairs), tuple(found)


def assignment_of(found: Sequence[Region], weight: str, activation: str | None) -> Assignment:
    """One quantizer at every weight of the regions, one at what meets it."""
    specs = {"weight": weight, "activation": activation}
    return Assignment.of({
        site.key: quantizer(spec)
        for region in found
        for site in region.sites
        if (spec := specs.get(site.role)) is not None
    })  # fmt: skip


def methods() -> Iterator[dict[str, object]]:
    """Every method at every width, all layers at once, on the report split."""
    for name, data in DATA.items():
        evaluator, found = evaluator_of(name)
        reference = evaluator.reference("report").metric
        forward = evaluator.forward_macs("search")
        for bits in BITS[name]:
            for method, words in METHODS.items():
                chosen = assignment_of(found, f"int{bits}_channel:{words}", ACTIVATIONS[name])
                before = evaluator.weights.macs
                evaluator.prepare(chosen)
                spent = (evaluator.weights.macs - before) / forward
                quality = evaluator.measure(chosen, "report")
                yield {
                    "model": name, "bits": bits, "method": method,
                    "loss": quality.loss, "stderr": quality.stderr,
                    "flip_rate": quality.flip_rate, "metric": quality.metric,
                    "reference_metric": reference, "samples": data.report,
                    "forward_equivalents": round(spent, 2),
                }  # fmt: skip


def sensitivities() -> Iterator[dict[str, object]]:
    """Every region under every 4-bit format, rounded to nearest and by GPTQ, all else full."""
    for name in DATA:
        evaluator, found = evaluator_of(name)
        for region in found:
            for format in FORMATS:
                row: dict[str, object] = {"model": name, "region": region.name, "format": format}
                for method, words in (("nearest", ""), ("gptq", ":gptq")):
                    chosen = assignment_of([region], f"{format}{words}", None)
                    quality = evaluator.measure(chosen, "search")
                    row |= {f"{method}_loss": quality.loss, f"{method}_stderr": quality.stderr}
                yield row


def ranks(rows: Sequence[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Rank correlation of the two tables: over regions, over formats, over everything."""
    for name in DATA:
        mine = [row for row in rows if row["model"] == name]
        groups = {f"regions at {format}": [r for r in mine if r["format"] == format]
                  for format in FORMATS}  # fmt: skip
        groups["every region and format"] = mine
        for what, group in groups.items():
            yield {"model": name, "ranked": what, **_agreement(group)}
        by_region: dict[object, list[dict[str, object]]] = {}
        for row in mine:
            by_region.setdefault(row["region"], []).append(row)
        each = [float(str(_agreement(group)["spearman"])) for group in by_region.values()]
        yield {"model": name, "ranked": "formats of one region, mean", "spearman": np.mean(each),
               "low": np.quantile(each, 0.025), "high": np.quantile(each, 0.975),
               "count": len(each)}  # fmt: skip


def _agreement(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Spearman's rho with a 95 % bootstrap interval over rows."""
    table = np.array([[float(str(r["nearest_loss"])), float(str(r["gptq_loss"]))] for r in rows])
    rng = np.random.default_rng(0)
    drawn = [table[rng.integers(len(table), size=len(table))] for _ in range(1000)]
    each = [spearmanr(*part.T).statistic for part in drawn if len(np.unique(part[:, 0])) > 2]
    low, high = np.quantile(each, (0.025, 0.975))
    return {"spearman": spearmanr(*table.T).statistic, "low": low, "high": high,
            "count": len(table)}  # fmt: skip


def write(name: str, rows: Sequence[dict[str, object]]) -> None:
    """A table of the results folder."""
    with (RESULTS / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({
                key: f"{value:.5g}" if isinstance(value, float) else value
                for key, value in row.items()
            })  # fmt: skip


def main() -> None:
    """Both parts, or the one that is named."""
    RESULTS.mkdir(exist_ok=True)
    parts = sys.argv[1:] or ["methods", "ranks"]
    if "methods" in parts:
        write("methods.csv", list(methods()))
    if "ranks" in parts:
        table = list(sensitivities())
        write("sensitivities.csv", table)
        write("ranks.csv", list(ranks(table)))


if __name__ == "__main__":
    main()
