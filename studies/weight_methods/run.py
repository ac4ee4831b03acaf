"""What the method behind a 3- or 4-bit weight is worth, and whether it changes the ranking.

`python -m studies.weight_methods.run [methods|equalization|sensitivities|ranks]` writes
`results/*.csv` (20 minutes on one core; `ranks` reads the table of `sensitivities`).
`efficientnet.py` is the part that needs photographs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from dse.errors import AssignmentError
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Region
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.space.schema import Data
from hwmodels.formats.catalog import quantizer
from hwmodels.work.role import region_role

Floats = npt.NDArray[np.float64]
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
PER_TENSOR = {
    "absmax": "absmax:uncorrected",
    "absmax, bias corrected": "absmax:bias_corrected",
    "mse, bias corrected": "mse:bias_corrected",
}
"""Ranges of weights with one scale a tensor, which equalisation is for."""
FORMATS = ("int4_channel", "int4_g128", "int4_g32", "mxfp4", "nvfp4")
"""The 4-bit choices whose ranking is compared."""


def evaluator_of(name: str) -> tuple[Evaluator, tuple[Region, ...]]:
    """An evaluator of a zoo model and the regions that schemes quantize."""
    graph = open_model(f"zoo:{name}").graph
    found = [region for region in Analysis(graph).regions if not region_role(region.role).is_kept]
    found = [region for region in found if any(site.role == "weight" for site in region.sites)]
    sites = {site.key: site for region in found for site in region.sites}
    operand = ACTIVATIONS[name]
    pairs = [
        (site.key, quantizer(operand))
        for site in sites.values()
        if operand is not None and site.role == "activation"
    ]
    return build_evaluator(Analysis(graph), DATA[name], sites, pairs), tuple(found)


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


def equalization() -> Iterator[dict[str, object]]:
    """Weights of fashion-resnet with one scale a tensor, as they are and equalised."""
    evaluator, found = evaluator_of("fashion-resnet")
    weights = [site.key for region in found for site in region.sites if site.role == "weight"]
    paired = {key for key in weights if _has_neighbour(evaluator, key)}
    for bits in (8, 4):
        for method, words in PER_TENSOR.items():
            plain = assignment_of(found, f"int{bits}:{words}", ACTIVATIONS["fashion-resnet"])
            equal = quantizer(f"int{bits}:{words}:equalize")
            both = {"no": plain, "yes": plain.replaced(dict.fromkeys(paired, equal))}
            for word, chosen in both.items():
                quality = evaluator.measure(chosen, "report")
                yield {
                    "model": "fashion-resnet", "bits": bits, "method": method, "equalized": word,
                    "loss": quality.loss, "stderr": quality.stderr, "metric": quality.metric,
                    "paired_weights": len(paired), "weights": len(weights),
                }  # fmt: skip


def _has_neighbour(evaluator: Evaluator, key: str) -> bool:
    try:
        evaluator.prepare([(key, quantizer("int8:equalize"))])
    except AssignmentError:
        return False
    return True


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


def ranks(rows: Sequence[Mapping[str, str]]) -> Iterator[dict[str, object]]:
    """Rank correlation of the two tables: over regions, over formats, over everything."""
    for name in DATA:
        mine = [row for row in rows if row["model"] == name]
        for format in FORMATS:
            group = [row for row in mine if row["format"] == format]
            yield {"model": name, "ranked": f"regions at {format}", **_agreement(group)}
        yield {"model": name, "ranked": "every region and format", **_agreement(mine)}
        regions = dict.fromkeys(row["region"] for row in mine)
        each = [_agreement([row for row in mine if row["region"] == region]) for region in regions]
        means = {key: float(np.mean([float(str(one[key])) for one in each])) for key in each[0]}
        yield {"model": name, "ranked": "formats of one region, mean", **means}


def _agreement(rows: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """Spearman's rho with a 95 % bootstrap interval over rows, and what noise leaves of 1.

    The ceiling is the mean correlation of two draws of the same losses, each as far off as their
    standard errors say.
    """
    nearest, gptq = (_column(rows, f"{method}_loss") for method in ("nearest", "gptq"))
    errors = {m: _column(rows, f"{m}_stderr") for m in ("nearest", "gptq")}
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(rows), size=len(rows)) for _ in range(1000)]
    each = [_rho(nearest[part], gptq[part]) for part in drawn if len(set(part)) > 2]
    ceilings = [
        _rho(*(losses + errors[method] * rng.standard_normal(len(rows)) for _ in range(2)))
        for method, losses in (("nearest", nearest), ("gptq", gptq))
        for _ in range(200)
    ]
    low, high = np.quantile(each, (0.025, 0.975))
    return {
        "spearman": _rho(nearest, gptq), "low": float(low), "high": float(high),
        "ceiling": float(np.mean(ceilings)), "count": len(rows),
    }  # fmt: skip


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def _rho(left: Floats, right: Floats) -> float:
    return float(spearmanr(left, right).statistic)


def write(name: str, rows: Sequence[Mapping[str, object]]) -> None:
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
    """All parts, or those that are named."""
    RESULTS.mkdir(exist_ok=True)
    parts = sys.argv[1:] or ["methods", "equalization", "sensitivities", "ranks"]
    if "methods" in parts:
        write("methods.csv", list(methods()))
    if "equalization" in parts:
        write("equalization.csv", list(equalization()))
    if "sensitivities" in parts:
        write("sensitivities.csv", list(sensitivities()))
    if "ranks" in parts:
        with (RESULTS / "sensitivities.csv").open() as file:
            write("ranks.csv", list(ranks(list(csv.DictReader(file)))))


if __name__ == "__main__":
    main()
