"""Vela's estimate of every operator of the networks, as two tables.

    python -m studies.npu_vela.vela --vela /path/to/vela

needs `ethos-u-vela==5.2.0` in an environment of its own and LiteRT (`dse[litert]`) in this one.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from pathlib import Path

from studies.npu_vela.networks import NETWORKS, built

RESULTS = Path(__file__).parent / "results"
DEVICES = {
    "ethos-u55-128": ("ethos-u55-128", "Ethos_U55_High_End_Embedded"),
    "ethos-u55": ("ethos-u55-256", "Ethos_U55_High_End_Embedded"),
    "ethos-u65-512": ("ethos-u65-512", "Ethos_U65_Client_Server"),
    "ethos-u85-512": ("ethos-u85-512", "Ethos_U85_SYS_DRAM_Mid"),
}
"""Our device: Vela's accelerator and system; the memory mode is Shared_Sram."""
COLUMNS = ("network", "device", "operator", "name", "cycles", "npu_cycles", "macs", "sram_bytes")


def measure(vela: str) -> None:
    """Write `operators.csv` and `networks.csv`."""
    rows: list[dict[str, object]] = []
    peaks: list[dict[str, object]] = []
    for name in NETWORKS:
        for device in DEVICES:
            with tempfile.TemporaryDirectory() as folder:
                built(name, Path(folder), tflite=True)
                compiled(vela, Path(folder), name, device)
                rows += operators(Path(folder), name, device)
                peaks.append(peak(Path(folder), name, device))
    RESULTS.mkdir(exist_ok=True)
    _write(RESULTS / "operators.csv", rows)
    _write(RESULTS / "networks.csv", peaks)


def compiled(vela: str, folder: Path, name: str, device: str) -> None:
    """Vela's files beside a network.

    Raises:
        SystemExit: It refuses the network.
    """
    printed(vela, folder, name, device)


def printed(vela: str, folder: Path, name: str, device: str) -> str:
    """Vela's words about a network, with its schedule; its files are beside the network.

    Raises:
        SystemExit: It refuses the network.
    """
    accelerator, system = DEVICES[device]
    config = Path(vela).resolve().parent.parent.glob("lib/python*/site-packages/ethosu")
    ini = next(config) / "config_files" / "Arm" / "vela.ini"
    command = [
        vela, "--accelerator-config", accelerator, "--system-config", system, "--memory-mode",
        "Shared_Sram", "--config", str(ini), "--verbose-performance", "--verbose-schedule",
        "--output-dir", str(folder), str(folder / f"{name}.tflite"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or "CPU operators = 0 " not in done.stdout:
        raise SystemExit(f"{name} on {device}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def operators(folder: Path, name: str, device: str) -> list[dict[str, object]]:
    """Vela's operators that take time, in order."""
    found: list[dict[str, object]] = []
    with (folder / f"{name}_per-layer.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = (
                name, device, row["NNG Operator"], row["Name"], int(row["Op Cycles"]),
                int(row["NPU"]), int(row["MAC Count"]), int(row["Staging Usage"]),
            )  # fmt: skip
            if row["Target"] == "NPU" and int(row["Op Cycles"]):
                found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def peak(folder: Path, name: str, device: str) -> dict[str, object]:
    """SRAM, weights as they are and coded, and cycles of a network."""
    (path,) = folder.glob(f"{name}_summary_*.csv")
    with path.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return {
        "network": name,
        "device": device,
        "sram_bytes": round(float(row["sram_memory_used"]) * 1024),
        "weight_bytes": round(float(row["total_original_weights"])),
        "coded_bytes": round(float(row["total_npu_encoded_weights"])),
    }


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vela", required=True, help="the command of ethos-u-vela 5.2.0")
    measure(parser.parse_args().vela)
