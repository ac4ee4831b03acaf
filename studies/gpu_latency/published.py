"""The README's table of errors by number type and device, from the studies' tables.

Usage: python studies/gpu_latency/published.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

STUDIES = Path(__file__).parents[1]
DEVICES = {"a100-sxm-80gb": "A100", "h100-sxm": "H100", "b200-sxm": "B200", "l40s": "L40S"}
GEMMS = {
    "bf16": "bf16", "fp8_dynamic": "fp8, dynamic", "fp8_block": "fp8, 128 x 128 blocks",
    "nvfp4": "nvfp4", "w8a8_int8_dynamic": "int8, dynamic", "w8a16": "int8 weights",
    "w4a16": "int4 weights",
}  # fmt: skip
ATTENTION = {
    ("context", "bf16"): "attention, prefill",
    ("context", "bf16_kv_fp8"): "attention, prefill, fp8 cache",
    ("generation", "bf16"): "attention, decoding",
    ("generation", "bf16_kv_fp8"): "attention, decoding, fp8 cache",
}
NONE = "–"


def published() -> str:
    """The table: mean |error| and, in brackets, the share inside of the 90 % interval."""
    gemms = pd.read_csv(STUDIES / "gpu_latency" / "results" / "cells.csv")
    gemms = gemms.assign(error=gemms["mape"], held=100 * gemms["inside"])
    calls = pd.read_csv(STUDIES / "attention_latency" / "results" / "left_out.csv")
    calls = calls.assign(error=calls["half of the trees"], held=calls["inside"])
    lines = [
        f"| left out | {' | '.join(DEVICES.values())} |",
        f"|---|{'---|' * len(DEVICES)}",
        *(_line(f"GEMM, {name}", gemms[gemms["dtype"] == dtype]) for dtype, name in GEMMS.items()),
        *(
            _line(name, calls[(calls["table"] == table) & (calls["dtype"] == dtype)])
            for (table, dtype), name in ATTENTION.items()
        ),
    ]
    return "\n".join(lines)


def _line(name: str, rows: pd.DataFrame) -> str:
    return f"| {name} | {' | '.join(_cell(rows[rows['device'] == one]) for one in DEVICES)} |"


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return NONE
    error, held = ((rows[name] * rows["rows"]).sum() / rows["rows"].sum()
                   for name in ("error", "held"))  # fmt: skip
    return f"{error:.0f} % ({held:.0f})"


if __name__ == "__main__":
    print(published())
