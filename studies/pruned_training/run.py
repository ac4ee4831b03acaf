"""What a network loses that is pruned by one salience or another while adapters are trained.

`python -m studies.pruned_training.run [--seeds 6]` writes `results/losses.csv`: a byte-level
decoder of 64 channels is trained for half of the steps, then frozen, and 60 % of its feed-forward
units are cut. Initial weights and data of a seed are the same for every salience.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

import torch

from dse.training.load import method_of
from dse.training.method import Salience
from dse.training.run import Run
from dse.training.workloads.byte_gpt import ByteGpt
from dse.zoo.llama import LlamaConfig

HERE = Path(__file__).parent
SIZES = LlamaConfig(vocabulary=256, width=64, layers=2, heads=4, kv_heads=2, ffn_width=128)
LAYERS = ["*gate_proj", "*up_proj"]
STEPS = 300
DENSITY = 0.4
UNPRUNED = "nothing cut"
TAUGHT = ", distilled"
"""After the name of a salience: what is left learns from the network with nothing cut."""


def main() -> None:
    """Trains every salience and prints paired differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        {"salience": salience, "seed": seed, "loss": round(loss(salience, seed, given.steps), 5)}
        for salience in (UNPRUNED, *get_args(Salience), f"gradient{TAUGHT}", f"outliers{TAUGHT}")
        for seed in range(given.seeds)
    ]
    with (HERE / "results" / "losses.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["salience", "seed", "loss"])
        writer.writeheader()
        writer.writerows(rows)
    by_salience: dict[str, list[float]] = {}
    for row in rows:
        by_salience.setdefault(str(row["salience"]), []).append(float(row["loss"]))
    for name, losses in by_salience.items():
        print(f"{name}: {mean(losses):.4f}")
        for other, theirs in by_salience.items():
            if other != name and len(losses) > 1:
                apart = [a - b for a, b in zip(losses, theirs, strict=True)]
                error = stdev(apart) / len(apart) ** 0.5
                print(f"  less {other}: {mean(apart):+.4f} ({error:.4f})")


def loss(salience: str, seed: int, steps: int) -> float:
    """Nats a byte of held-out text at the end of a run; NaN where it diverged."""
    tuning: dict[str, object] = {"rank": 4, "begins": 0.5}
    if salience != UNPRUNED:
        name = salience.removesuffix(TAUGHT)
        prune = {"layers": LAYERS, "salience": name, "every": 5, "ends": 0.6}
        tuning |= {"density": DENSITY, "prune": prune}
        if name != salience:
            tuning["distill"] = {}
    content = {"source": "this study", "roles": {"*": "fp32"}, "tuning": tuning}
    workload = ByteGpt(name="byte-gpt-64", config=SIZES, steps=steps, rate=3e-3)
    run = Run(method_of(content, origin="this study"), workload, seed, steps=steps)
    while not run.done:
        run.advance()
    last = run.outcome().last
    return float("nan") if last is None else last.loss


if __name__ == "__main__":
    main()
