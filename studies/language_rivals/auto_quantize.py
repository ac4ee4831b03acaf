"""NVIDIA ModelOpt's AutoQuantize at three budgets, on the CPU.

`python -m studies.language_rivals.auto_quantize WORK` in an environment with `nvidia-modelopt` and
`pulp`. Its effective bits leave scales out, so that it is asked for a quarter of a bit less: what
one scale for 64 weights takes.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from typing import Any

import torch

from studies.language_rivals import layers, score, text

BUDGETS = (4.5, 5.0, 6.0)
WIDE = 16.0


def format_of(bits: int, algorithm: str) -> dict[str, Any]:
    """A format of weights alone, one scale for a group of inputs."""
    return {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "*weight_quantizer", "enable": True,
             "cfg": {"num_bits": bits, "block_sizes": {-1: layers.GROUP}}},
        ],
        "algorithm": algorithm,
    }  # fmt: skip


def main() -> None:
    """A recipe for each budget, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--algorithm", default="max", help="Of 4-bit weights: max or awq_lite.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import modelopt.torch.quantization as mtq  # noqa: PLC0415

    windows = [
        torch.from_numpy(window[None, :])
        for name in ("calibration", "search")
        for window in text.split(given.work, name)
    ]

    def forward_step(model: Any, batch: torch.Tensor) -> Any:
        return model(input_ids=batch, labels=batch)

    def passes(model: Any) -> None:
        with torch.no_grad():
            for batch in windows:
                model(input_ids=batch)

    begun = _seconds()
    _, state = mtq.auto_quantize(
        layers.loaded(given.work), constraints={"effective_bits": BUDGETS[0] - 0.25},
        quantization_formats=[format_of(4, given.algorithm), format_of(8, "max")],
        data_loader=windows, forward_step=forward_step, loss_func=lambda out, _: out.loss,
        num_calib_steps=len(windows), num_score_steps=len(windows), disabled_layers=["*lm_head*"],
    )  # fmt: skip
    scored = _seconds() - begun
    for budget in BUDGETS:
        before = _seconds()
        config = mtq.get_auto_quantize_config(state, {"effective_bits": budget - 0.25})
        model = mtq.quantize(layers.loaded(given.work), config, forward_loop=passes)
        bits = {}
        for name, module in model.named_modules():
            if name.endswith("_proj"):
                quantizer = module.weight_quantizer
                bits[name] = float(quantizer.num_bits) if quantizer.is_enabled else WIDE
        mtq.fold_weight(model)
        spent = _seconds() - before + scored
        weights = layers.weights_of(model)
        (given.work / f"modelopt-{budget}.json").write_text(json.dumps(bits, indent=1))
        score.append(
            given.work, tool="ModelOpt", recipe=f"AutoQuantize {budget}, {given.algorithm}",
            weights=weights, held=layers.held_bytes(bits, weights), whole=False,
            cpu_seconds=spent, forwards=float("nan"),
        )  # fmt: skip


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
