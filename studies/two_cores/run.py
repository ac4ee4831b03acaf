"""A decoder of 1.04 billion parameters on two cores: one evaluation beside ONNX Runtime's forward.

`python -m studies.two_cores.run FOLDER [FORMAT ...]` writes `results/times.csv`. The network, with
random weights in float32, is made in FOLDER once (4.2 GB). Every row is a process of its own that
may use two cores; ours is told to take 12 GB at most.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studies.large_imports.memory import peak_bytes

HERE = Path(__file__).parent
ROWS = HERE / "results" / "times.csv"
FORMATS = ("w8a8_fp8_dynamic", "w4a4_nvfp4", "w8a8_int8")
SIZES = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 2048, "tie_word_embeddings": True,
}  # fmt: skip
SAMPLES, TOKENS, BATCH = 16, 512, 4
MEMORY = 12_000_000_000
CORES = 2
RIVAL = "ONNX Runtime, float32"
COLUMNS = ("run", "wall_s", "cpu_s", "cpu_ratio", "wall_ratio", "peak_gb", "anonymous_gb",
           "loss", "load")  # fmt: skip


def main() -> None:
    """Measures the rival and every format, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_rival(given.folder) if given.one == RIVAL else _ours(given)))
        return
    _make(given.folder)
    rows: list[dict[str, Any]] = []
    for one in (RIVAL, *given.formats):
        for row in _in_a_process(given.folder, one):
            base = rows[0] if rows else row
            ratios = {f"{key}_ratio": round(row[f"{key}_s"] / base[f"{key}_s"], 2)
                      for key in ("cpu", "wall")}  # fmt: skip
            if row["run"] not in [known["run"] for known in rows]:
                rows.append(row | ratios)
                print(rows[-1], flush=True)
        with ROWS.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def _make(folder: Path) -> None:
    """The network as a folder of Hugging Face, as ONNX beside its weights, and token ids."""
    if (folder / "tokens.npy").exists():
        return
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from dse.cli.app import run  # noqa: PLC0415

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SIZES, architectures=["LlamaForCausalLM"], dtype=torch.float32
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    if run(["import", str(folder), "-o", str(folder / "model.onnx")]):
        raise SystemExit(2)
    tokens = np.random.default_rng(0).integers(
        SIZES["vocab_size"], size=(2 * SAMPLES + 2) * TOKENS
    )
    np.save(folder / "tokens.npy", tokens)


def _in_a_process(folder: Path, one: str) -> list[dict[str, Any]]:
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:CORES])
    command = ["taskset", "-c", cores, sys.executable, "-m", "studies.two_cores.run"]
    done = subprocess.run(
        [*command, str(folder), "--one", one], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(CORES)},
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _timed(run: str, work: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {
        "run": run, "wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(cpu, 1),
        "peak_gb": round(peak_bytes() / 1e9, 1), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    return row, result


def _rival(folder: Path) -> list[dict[str, Any]]:
    """ONNX Runtime on the same file and the same tokens; making the session is not counted."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    known = {"input_ids", "attention_mask", "position_ids"}
    others = {one.name for one in session.get_inputs()} - known
    if others:
        raise SystemExit(f"{folder}: inputs that this study does not feed: {sorted(others)}")
    names = {one.name for one in session.get_inputs()}
    ids = np.load(folder / "tokens.npy")[-SAMPLES * TOKENS :].reshape(-1, BATCH, TOKENS)
    whole = {
        "attention_mask": np.ones((BATCH, TOKENS), np.int64),
        "position_ids": np.broadcast_to(np.arange(TOKENS), (BATCH, TOKENS)).astype(np.int64),
    }

    def forwards() -> None:
        for part in ids:
            feeds = {"input_ids": part.astype(np.int64), **whole}
            session.run(None, {name: feeds[name] for name in names})

    return [_timed(RIVAL, forwards)[0]]


def _ours(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Full precision, which every loss is read against, and one format."""
    from dse.evaluate.setup import build_evaluator  # noqa: PLC0415
    from dse.execute.memory import held_bytes  # noqa: PLC0415
    from dse.graph.patterns.analysis import Analysis  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.schema import Data  # noqa: PLC0415
    from dse.space.uniform import uniform_assignment  # noqa: PLC0415

    analysis = Analysis(open_model(str(given.folder / "model.onnx")).graph)
    assignment = uniform_assignment(analysis.regions, given.one)
    data = Data(
        source=str(given.folder / "tokens.npy"), calibration=BATCH, search=2, report=SAMPLES,
        sequence=TOKENS, batch=BATCH,
    )  # fmt: skip
    evaluator = build_evaluator(
        analysis, data, analysis.by_key, assignment.sites, memory_bytes=MEMORY
    )
    full, _ = _timed("dse, full precision", lambda: evaluator.reference("report"))
    row, quality = _timed(f"dse, {given.one}", lambda: evaluator.measure(assignment, "report"))
    held = round(held_bytes() / 1e9, 1)
    return [full, row | {"loss": round(quality.loss, 5), "anonymous_gb": held}]


if __name__ == "__main__":
    main()
