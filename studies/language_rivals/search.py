"""`dse search` to its end on llama.cpp's menu, in the bytes of llama.cpp's own mixes.

`python -m studies.language_rivals.search WORK BITS [TRIALS]`: the draft that `dse search` makes of
the Hugging Face folder for llama.cpp, with `--bits-per-weight BITS`, on the study's windows. What
is scored is read back from the GGUF file of the trial of least loss.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader

import dse
from dse.model import open_model
from dse.space.init import Draft, space_text
from dse.space.schema import Target
from dse.zoo.smollm2 import load_smollm2
from studies.language_rivals import dse_scores, score

TARGET = Target(device="xeon-8480", runtime="llama-cpp")
DIMS = {"batch": 1, "sequence": 128}
TRIALS = 8
CLI = "from dse.cli import main; main()"


def space_of(work: Path, bits: float, trials: int) -> str:
    """The drafted space, as a file."""
    draft = Draft(
        targets=(TARGET,), data="tokens.npz", objectives=("quality_loss", "weight_bytes"),
        constraints=(f"bits_per_weight<={bits}",), trials=trials, dims=DIMS, folder=work,
        served=False,
    )  # fmt: skip
    text = space_text(open_model("hf", folder=work), "hf", draft)
    return text.replace("  search: 16 ", "  search: 8 ").replace("  report: 16 ", "  report: 8 ")


def best_trial(run: Path) -> int:
    """The trial of least loss on the search windows."""
    with (run / "trials.csv").open(newline="") as stream:
        rows = [*csv.DictReader(stream)]
    return int(min(rows, key=lambda row: float(row["quality_loss"]))["trial"])


def main() -> None:
    """A search, its file, and the file's row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("bits", type=float)
    parser.add_argument("trials", type=int, nargs="?", default=TRIALS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run = asked.work / f"run-{asked.bits}"
    space = asked.work / f"space-{asked.bits}.yaml"
    space.write_text(space_of(asked.work, asked.bits, asked.trials))
    dse.search(None, space, data=dse_scores.splits(asked.work, "input_ids"), out=run)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    out = asked.work / f"dse-{asked.bits}.gguf"
    command = [sys.executable, "-c", CLI, "export", str(run), "--trial", str(best_trial(run))]
    subprocess.run([*command, "--to", "gguf", "-o", str(out)], check=True)
    append(asked.work, out, f"search, {asked.bits} bits", spent)


def append(work: Path, file: Path, recipe: str, spent: float) -> None:
    """The row of a GGUF file: all of its tensors."""
    held = sum(one.n_bytes for one in GGUFReader(file).tensors)
    weights = {name: np.array(value) for name, value in load_smollm2(file).state_dict().items()}
    score.append(
        work, tool="dse", recipe=recipe, weights=weights, held=held, whole=True,
        cpu_seconds=spent, forwards=float("nan"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
