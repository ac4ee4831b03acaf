"""Errors of the NPU model against Vela, written into the README beside this file.

python -m studies.npu_vela
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from hwmodels.estimators.npu.estimator import HIGH, LOW
from studies.npu_vela.compare import Comparison, compare
from studies.npu_vela.networks import NETWORKS, set_of

README = Path(__file__).parent / "README.md"
START, END = "<!-- table -->\n", "<!-- end -->\n"


def table(found: Comparison) -> str:
    """Errors by device and networks, as Markdown."""
    lines = [
        "| device | networks | regions | median error | within 15 % | Spearman | in interval "
        "| network cycles, median (worst) | SRAM peak, median (worst) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for words in ("fresh", "seen", "chosen on"):
        regions = found.regions[found.regions.set == words]
        networks = found.networks[found.networks.set == words]
        for device in (*dict.fromkeys(found.regions.device), "all"):
            own = regions if device == "all" else regions[regions.device == device]
            whole = networks if device == "all" else networks[networks.device == device]
            lines.append(_line(device, words, own, whole))
    return "\n".join(lines) + "\n"


def by_network(found: Comparison) -> str:
    """Peak of the SRAM by network and device, predicted over Vela's, as Markdown."""
    devices = list(dict.fromkeys(found.networks.device))
    lines = [f"| network | {' | '.join(devices)} |", f"|---|{'---|' * len(devices)}"]
    for name in NETWORKS:
        own = found.networks[found.networks.network == name].set_index("device")
        ratios = [own.loc[device, "sram"] / own.loc[device, "vela_sram"] for device in devices]
        lines.append(
            f"| {name} ({set_of(name)}) | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        )
    return "\n".join(lines) + "\n"


def errors(found: pd.DataFrame) -> pd.Series:
    """Relative errors of cycles."""
    return (found.predicted / found.vela - 1).abs()


def _line(device: str, words: str, regions: pd.DataFrame, networks: pd.DataFrame) -> str:
    off = errors(regions)
    rank = spearmanr(regions.predicted, regions.vela).statistic
    ratio = regions.vela / regions.predicted
    inside = ((ratio >= LOW) & (ratio <= HIGH)).mean()
    whole = (networks.cycles / networks.vela_cycles - 1).abs()
    sram = (networks.sram / networks.vela_sram - 1).abs()
    cells = [
        device, words, str(len(regions)), f"{off.median():.1%}", f"{(off <= 0.15).mean():.0%}",
        f"{rank:.3f}", f"{inside:.0%}", f"{whole.median():.1%} ({whole.max():.0%})",
        f"{sram.median():.1%} ({sram.max():.0%})",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Compare, and write the tables."""
    start = time.perf_counter()
    found = compare()
    seconds = time.perf_counter() - start
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    tail = rest.partition(END)[2]
    body = f"{table(found)}\nSRAM peak, predicted over Vela's:\n\n{by_network(found)}"
    README.write_text(f"{head}{START}{body}{END}{tail}", encoding="utf-8")
    print(f"{len(found.regions)} regions of {len(found.networks)} networks in {seconds:.0f} s")


if __name__ == "__main__":
    main()
