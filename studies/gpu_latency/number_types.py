"""Number types left out: on one device, and on every device."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from score import scores

from hwmodels.fit.residual import fit_model
from hwmodels.fit.skeleton import fit_constants

Row = tuple[str, dict[str, object]]


def everywhere(table: pd.DataFrame) -> Iterator[Row]:
    """Each number type left out on every device.

    What quantising and widening take was seen on other types only, the GEMM not at all. bf16 is
    what the constants are fitted to; the other types do not replace it.
    """
    constants = fit_constants(table)
    for dtype in sorted(set(table["dtype"]) - {"bf16"}):
        chosen = table["dtype"] == dtype
        held = table[chosen].reset_index(drop=True)
        model = fit_model(table[~chosen].reset_index(drop=True), constants=constants)
        account = model.account(held)
        guesses = {"skeleton": model.skeleton_s, "by kinship": model.latency_s}
        for name, guess in guesses.items():
            seconds = guess(held, account)
            for device, rows in held.assign(seconds=seconds).groupby("device"):
                yield "types", {
                    "left_out": dtype, "device": device, "model": name, "rows": len(rows),
                    **scores(rows, rows["seconds"].to_numpy()),
                }  # fmt: skip


def on_one_device(table: pd.DataFrame) -> Iterator[Row]:
    """One number type left out on one device: its bf16 and the type elsewhere are known."""
    pairs = table[table["dtype"] != "bf16"][["device", "dtype"]].drop_duplicates()
    for device, dtype in sorted(map(tuple, pairs.to_numpy())):
        chosen = (table["device"] == device) & (table["dtype"] == dtype)
        kept = table[~chosen].reset_index(drop=True)
        held = table[chosen].reset_index(drop=True)
        yield "device_types", {
            "device": device, "dtype": dtype, "rows": len(held),
            "learned_from": "measured" if dtype in set(kept["dtype"]) else "analytic only",
            **scores(held, fit_model(kept).latency_s(held)),
        }  # fmt: skip
