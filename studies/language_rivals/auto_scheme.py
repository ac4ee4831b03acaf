"""AutoRound's AutoScheme: its scores of every matrix in 4 and 8 bits.

`python -m studies.language_rivals.auto_scheme WORK`, with `auto-round` installed. The scores stay
in its cache, where `allocations` finds them for every budget.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from studies.language_rivals import layers, score, text

BUDGET = 4.5
OPTIONS = "W4A16G64,W8A16G64"
LENGTH = 120
"""Tokens of a sample: windows of 128 read again as text can be a few shorter."""


def main() -> None:
    """Scores, and one allocation of its own, rounded to nearest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    from auto_round import AutoRound, AutoScheme  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(work / "hf")
    windows = [*text.split(work, "calibration"), *text.split(work, "search")]
    data = work / "windows.json"
    data.write_text(json.dumps([{"text": tokenizer.decode(window)} for window in windows]))
    common = {"nsamples": len(windows), "seqlen": LENGTH, "dataset": str(data)}
    scheme = AutoScheme(avg_bits=BUDGET, options=OPTIONS, batch_size=4, **common)
    run = AutoRound(
        layers.loaded(work), tokenizer=tokenizer, scheme=scheme, iters=0, batch_size=4,
        device_map="cpu", amp=False, enable_torch_compile=False, disable_opt_rtn=True, **common,
    )  # fmt: skip
    run.quantize()
    score.note_spent(work, "AutoRound")


if __name__ == "__main__":
    main()
