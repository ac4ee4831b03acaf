"""AutoRound's AutoScheme at three budgets, its own rounding behind it.

`python -m studies.language_rivals.auto_scheme WORK [--iters N]`, with `auto-round` installed.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

import torch

from studies.language_rivals import layers, score, text

BUDGETS = (4.5, 5.0, 6.0)
OPTIONS = "W4A16G64,W8A16G64"
LENGTH = 120
"""Tokens of a sample: windows of 128 read again as text can be a few shorter."""


def main() -> None:
    """A recipe for each budget, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--iters", type=int, default=0)
    parser.add_argument("--budgets", type=float, nargs="*", default=BUDGETS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    from auto_round import AutoRound, AutoScheme  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(given.work / "hf")
    windows = [*text.split(given.work, "calibration"), *text.split(given.work, "search")]
    data = given.work / "windows.json"
    data.write_text(json.dumps([{"text": tokenizer.decode(window)} for window in windows]))
    common = {"nsamples": len(windows), "seqlen": LENGTH, "dataset": str(data)}
    for budget in given.budgets:
        before = _seconds()
        scheme = AutoScheme(avg_bits=budget, options=OPTIONS, batch_size=4, **common)
        run = AutoRound(
            layers.loaded(given.work), tokenizer=tokenizer, scheme=scheme, iters=given.iters,
            batch_size=4, device_map="cpu", amp=False, enable_torch_compile=False,
            disable_opt_rtn=True, **common,
        )  # fmt: skip
        model, decided = run.quantize()
        spent = _seconds() - before
        weights = layers.weights_of(model)
        bits = {
            name: float(one["bits"]) for name, one in decided.items() if name.endswith("_proj")
        }
        (given.work / f"autoround-{budget}.json").write_text(json.dumps(bits, indent=1))
        score.append(
            given.work, tool="AutoRound", recipe=f"AutoScheme {budget}, nearest",
            weights=weights, held=layers.held_bytes(bits, weights), whole=False,
            cpu_seconds=spent, forwards=float("nan"),
        )  # fmt: skip


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
