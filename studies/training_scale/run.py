"""Trains a decoder of 70 thousand parameters under recipes whose losses at scale are published.

`python -m studies.training_scale.run FOLDER [--seeds 3] [--rate 0.01] [--only NAME ...]` goes on
where FOLDER stopped and writes results/losses-RATE.csv; with `--width 16 --samples 16 --steps 257`
it is one of 11 thousand parameters and 25 tokens each (results/losses-RATE-w16.csv). `python -m
studies.training_scale.score TABLE` compares with the published table. `--minutes M` stops a piece,
whose ended runs are written.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import torch

from dse.training.experiment import Experiment, advance, open_folder, outcomes
from dse.training.load import REFERENCE, load_method
from dse.training.workloads.byte_gpt import ByteGpt
from dse.training.workloads.catalogue import workload
from studies.training_scale.recipes import recipes

RESULTS = Path(__file__).parent / "results"
LATE = 30
"""Steps at the end whose training losses are averaged: every recipe sees the same text there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--width", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {REFERENCE: load_method(REFERENCE)}
    chosen |= {
        one.name: one.method for one in recipes() if one.name in given.only or not given.only
    }
    byte_gpt = workload("byte-gpt-64-1")
    assert isinstance(byte_gpt, ByteGpt)
    byte_gpt = replace(byte_gpt, rate=given.rate, samples=given.samples or byte_gpt.samples)
    if given.width:
        config = replace(byte_gpt.config, width=given.width, ffn_width=2 * given.width)
        byte_gpt = replace(byte_gpt, config=config, name=f"byte-gpt-{given.width}-1")
    trial = Experiment(
        folder=given.folder,
        workload=byte_gpt,
        methods=chosen,
        seeds=given.seeds,
        steps=given.steps,
    )
    open_folder(trial)
    advance(trial, until=time.monotonic() + 60 * given.minutes)
    RESULTS.mkdir(exist_ok=True)
    width = f"-w{given.width}" if given.width else ""
    path = RESULTS / f"losses-{given.rate:g}{width}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(("recipe", "seed", "held_out", "late_training", "diverged_at"))
        for (name, seed), one in sorted(outcomes(trial).items()):
            late = one.curve.loss[-LATE:]
            held = "" if one.last is None else f"{one.last.loss:.6f}"
            lines.writerow((name, seed, held, f"{sum(late) / len(late):.6f}", one.diverged_at))


if __name__ == "__main__":
    main()
