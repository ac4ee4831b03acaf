"""ModelOpt's AutoQuantize: its scores of matrices in 4 and 8 bits.

`python -m studies.language_rivals.auto_quantize WORK`, with `nvidia-modelopt` installed. Writes
WORK/modelopt.json, where `allocations` finds the scores of each way for every budget.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from studies.language_rivals import layers, text

SCORES = "modelopt.json"
BITS = 9.0
"""It wants one that can be met, the head in 16 bits counted; scores do not depend on it."""
WIDTHS = (4, 8)


def config(width: int) -> dict[str, Any]:
    """Weights alone, in groups along the inputs, as every tool of the study has them."""
    return {
        "quant_cfg": [
            {
                "quantizer_name": "*weight_quantizer",
                "cfg": {"num_bits": width, "block_sizes": {-1: layers.GROUP}},
            },
            {"quantizer_name": "*input_quantizer", "enable": False},
        ],
        "algorithm": "max",
    }


def scores(work: Path, *, grouped: bool) -> list[tuple[list[str], dict[int, float]]]:
    """Names that take one format, with the score of each width, by gradients as is its default.

    Args:
        work: the folder of the network.
        grouped: whether query, key and value, and gate and up, take one format, as its rules
            have it.
    """
    import modelopt.torch.quantization as mtq  # noqa: PLC0415
    from modelopt.torch.quantization import algorithms  # noqa: PLC0415

    base = algorithms._AutoQuantizeBaseSearcher
    rules, windows = base.quant_grouping_rules, []
    for name in ("calibration", "search"):
        windows += [torch.from_numpy(window[None]) for window in text.split(work, name)]
    if not grouped:
        base.quant_grouping_rules = []
    try:
        _, state = mtq.auto_quantize(
            layers.loaded(work),
            constraints={"effective_bits": BITS},
            quantization_formats=[config(width) for width in WIDTHS],
            data_loader=windows,
            forward_step=lambda model, window: model(window[:, :-1]).logits,
            loss_func=_loss,
            disabled_layers="*lm_head*",
            num_calib_steps=len(windows),
            num_score_steps=len(windows),
        )
    finally:
        base.quant_grouping_rules = rules
    found = []
    for one in state["candidate_stats"].values():
        by_width = {
            round(16 * recipe.compression): float(value)
            for recipe, value in zip(one["formats"], one["scores"], strict=True)
        }
        if by_width.keys() >= set(WIDTHS):  # the head has no choice
            found.append((list(one["module_names"]), {w: by_width[w] for w in WIDTHS}))
    return found


def _loss(logits: Tensor, window: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), window[:, 1:].flatten())


def main() -> None:
    """Scores of every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    kept: dict[str, Any] = {}
    for tool, grouped in (("ModelOpt", True), ("ModelOpt, apart", False)):
        start = time.process_time()
        found = scores(work, grouped=grouped)
        seconds = time.process_time() - start
        kept[tool] = {"scores": found, "cpu_seconds": round(seconds, 1)}
        (work / SCORES).write_text(json.dumps(kept))
        print(tool, len(found), f"{seconds:.0f} s", found[:2], flush=True)


if __name__ == "__main__":
    main()
