"""Gradient scores beside measured losses: errors of a weight summed by output, and one by one.

`python -m studies.gradient_scores.run` writes `results/ranks.csv`, and every score with its
measured loss in `results/scores.csv`.
"""

from __future__ import annotations

import argparse
import csv
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from dse.evaluate.evaluator import SplitName
from dse.explore.measure.session import Session, prepare
from dse.sensitivity import gradient
from dse.space.load import parse_space

NETWORKS = {
    "byte-gpt": {
        "batch": "4", "dims": "batch: 1, sequence: 256",
        "kept": "\n  - {match: {kind: attention}, use: [bf16]}",
    },
    "fashion-resnet": {"batch": "8", "dims": "batch: 1", "kept": ""},
}  # fmt: skip
"""Samples of a batch, sizes of a call, and the rule for what is left as it is."""
SPACE = """
model: zoo:{name}
data: {{source: zoo:{name}, calibration: 8, search: 16, report: 2, batch: {batch}}}
scenario: {{phases: {{call: {{share: 1, dims: {{{dims}}}}}}}}}
targets: [{{device: h100-sxm}}]
candidates:{kept}
  - match: {{}}
    use:
      - bf16
      - {{name: nearest4, weight: "int4_g32:absmax:uncorrected"}}
      - {{name: ranges4, weight: "int4_g32:output_mse:uncorrected"}}
      - {{name: gptq4, weight: "int4_g32:gptq:uncorrected"}}
      - {{name: nearest3, weight: "int3_g32:absmax:uncorrected"}}
      - {{name: gptq3, weight: "int3_g32:gptq:uncorrected"}}
      - w8a8_int8
      - w4a4_nvfp4
objectives: [quality_loss, weight_bytes]
"""
BY_OUTPUT, ONE_BY_ONE = "by output", "one by one"
SEEDS = (0, 1, 2)
"""Of the labels that are drawn."""
DRAWS = 2000
ALL = "all"
RESULTS = Path(__file__).parent / "results"
Scores = NDArray[np.float64]
"""(seeds, regions, choices)."""


def one_by_one(operand: gradient._Operand, probes: Mapping[str, gradient.Probe]) -> float:
    """The diagonal of the Fisher information: every element's error by itself."""
    total = 0.0
    read = [probes[key] for key in operand.sites if probes[key].holds]
    gradients = zip(*(probe.gradients for probe in read), strict=True)
    for value, parts in zip(read[0].values, gradients, strict=True):
        moved = torch.stack(parts).sum(dim=0) * (operand.emulator(value) - value)
        total += float(moved.square().sum(dtype=torch.float64))
    return total


FORMS = {BY_OUTPUT: gradient._energy, ONE_BY_ONE: one_by_one}


class Network:
    """A network's regions that have a choice, and what each choice alone loses."""

    def __init__(self, name: str) -> None:
        space = parse_space(SPACE.format(name=name, **NETWORKS[name]), origin=name)
        self.session: Session = prepare(space, origin=name, folder=Path())
        self.problem = self.session.design.problem
        self.regions = [v for v, one in enumerate(self.problem.variables) if len(one.choices) > 1]
        first = self.problem.variables[self.regions[0]]
        self.choices = [choice.name for choice in first.choices[1:]]
        measure = self.session.evaluator.measure
        self.measured = np.array([
            [measure(self.problem.changed(v, c + 1)).loss for c in range(len(self.choices))]
            for v in self.regions
        ])  # fmt: skip

    def scored(self, form: str, split: SplitName) -> Scores:
        """Scores of every choice alone."""
        found = []
        for seed in SEEDS:
            with mock.patch.object(gradient, "_energy", FORMS[form]):
                table = gradient.gradient_scores(
                    self.session.evaluator, self.problem, split=split, seed=seed
                )
            losses = table.losses(self.problem)
            found.append([losses[v][1:] for v in self.regions])
        return np.array(found)


def compared(scores: Scores, measured: NDArray[np.float64]) -> dict[str, float]:
    """Rank correlation (mean over seeds), score over loss (median), and 95 % over regions."""

    def both(drawn: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        draws = len(drawn)
        losses = measured[drawn].reshape(draws, -1)
        ranks = [_spearman(one[drawn].reshape(draws, -1), losses) for one in scores]
        ratios = (scores / measured)[:, drawn].swapaxes(0, 1).reshape(draws, -1)
        return np.mean(ranks, axis=0), np.median(ratios, axis=1)

    count = len(measured)
    found = both(np.random.default_rng(0).integers(0, count, (DRAWS, count)))
    low, high = np.nanquantile(found, [0.025, 0.975], axis=1)
    rho, ratio = (float(one[0]) for one in both(np.arange(count)[None]))
    return {
        "spearman": rho, "spearman_low": low[0], "spearman_high": high[0],
        "ratio": ratio, "ratio_low": low[1], "ratio_high": high[1],
    }  # fmt: skip


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row."""
    a, b = (rankdata(one, axis=1) for one in (first, second))
    a, b = (one - one.mean(axis=1, keepdims=True) for one in (a, b))
    found: NDArray[np.float64] = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found


def write(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV in the folder of results, four figures a number."""
    with (RESULTS / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    """Every network, both forms on the search split, and today's on the calibration split."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    ranks: list[dict[str, object]] = []
    every: list[dict[str, object]] = []
    for name in NETWORKS:
        network = Network(name)
        _seconds(f"{name} measured")
        splits: list[tuple[str, SplitName]] = [
            (BY_OUTPUT, "search"), (ONE_BY_ONE, "search"), (BY_OUTPUT, "calibration"),
        ]  # fmt: skip
        for form, split in splits:
            scores = network.scored(form, split)
            _seconds(f"{name} scored {form}, {split} split")
            kept = {choice: [c] for c, choice in enumerate(network.choices)}
            for choice, places in {**kept, ALL: [*range(len(kept))]}.items():
                found = compared(scores[..., places], network.measured[:, places])
                label = {"network": name, "split": split, "form": form, "choice": choice}
                ranks.append({**label, "regions": len(network.regions), **found})
            every += [
                {
                    "network": name, "split": split, "form": form, "choice": choice,
                    "region": network.problem.variables[v].name,
                    "measured": float(network.measured[r, c]),
                    **{f"score_{seed}": float(scores[s, r, c]) for s, seed in enumerate(SEEDS)},
                }
                for r, v in enumerate(network.regions)
                for c, choice in enumerate(network.choices)
            ]  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    write("ranks.csv", ranks)
    write("scores.csv", every)
    _seconds("all")


def _seconds(label: str) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{label}: {used.ru_utime + used.ru_stime:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
