"""A GGUF file's divergence as llama.cpp itself computes it, beside the same file's in float32.

`python -m studies.language_rivals.in_llamacpp WORK FILE.gguf...`, at every 16th position of the
report windows. llama.cpp rounds activations to 8 bits in its kernels; float32 does not.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dse.zoo.smollm2 import load_smollm2
from studies.language_rivals import score, text

STRIDE = 16
VOCABULARY = 49152
DRAWS = 32
"""Tokens that are parts of characters have no answer: another one is drawn."""
RESULTS = Path(__file__).parent / "results" / "in_llamacpp.csv"
COLUMNS = ("file", "positions", "kl_llamacpp", "kl_float32", "kl_between")
Floats = NDArray[np.float64]


class Server:
    """A file opened by llama.cpp."""

    def __init__(self, file: Path) -> None:
        import xllamacpp  # noqa: PLC0415

        given = xllamacpp.CommonParams()
        given.model.path = str(file)
        given.n_ctx, given.n_parallel, given.warmup = 2 * text.SHORT, 1, False
        given.cpuparams.n_threads = 1
        self._server = xllamacpp.Server(given)

    def after(self, tokens: list[int]) -> Floats:
        """Log-probabilities of every token that may follow, float64.

        Raises:
            RuntimeError: llama.cpp answers with no probabilities.
        """
        for seed in range(DRAWS):
            answer: Any = self._server.handle_completions({
                "prompt": tokens, "n_predict": 1, "temperature": 1.0, "seed": seed,
                "n_probs": VOCABULARY, "post_sampling_probs": False, "cache_prompt": True,
            })  # fmt: skip
            content = answer if isinstance(answer, dict) else json.loads(answer)
            steps = content.get("completion_probabilities")
            if not steps:
                steps = (content["choices"][0].get("logprobs") or {}).get("content")
            if steps:
                found = np.full(VOCABULARY, -np.inf)
                for one in steps[0]["top_logprobs"]:
                    found[one["id"]] = one["logprob"]
                return found
        raise RuntimeError(f"no token that is text in {DRAWS} draws")


def divergence(left: Floats, right: Floats) -> float:
    """Nats of right from left, log-probabilities both."""
    kept = np.isfinite(left) & np.isfinite(right)
    return float((np.exp(left[kept]) * (left[kept] - right[kept])).sum())


def main() -> None:
    """One row a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    windows = text.split(asked.work, "report")[::2]
    full = score.reference(asked.work)
    rows = []
    for file in asked.files:
        server, model = Server(file), load_smollm2(file)
        found = []
        for window, base in zip(windows, full, strict=True):
            plain = score.logits(model, window)
            for place in range(STRIDE - 1, text.SHORT, STRIDE):
                there = server.after([int(token) for token in window[: place + 1]])
                wide, here = (one[place].double().numpy() for one in (base, plain))
                found.append(
                    (divergence(wide, there), divergence(wide, here), divergence(here, there))
                )
        means = np.mean(found, axis=0)
        rows.append((file.name, len(found), *(f"{one:.6g}" for one in means)))
        print(dict(zip(COLUMNS, rows[-1], strict=True)), flush=True)
    with RESULTS.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
