"""A small deterministic search result in the shape of `spaces/fp4.yaml`, without torch or optuna.

Losses add up from made-up sensitivities, latencies come from a two-line roofline, and the front
is the non-dominated set of a Lagrangian sweep: consistent enough that every figure has something
to show, cheap enough to be made for each test.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHOICES = ("bf16", "w8a8_fp8_dynamic", "w8a8_mxfp8", "w4a4_mxfp4", "w4a4_nvfp4")
BITS = {"bf16": 16, "w8a8_fp8_dynamic": 8, "w8a8_mxfp8": 8.25, "w4a4_mxfp4": 4.25,
        "w4a4_nvfp4": 4.5}  # fmt: skip
NOISE = {"bf16": 0.0, "w8a8_fp8_dynamic": 0.02, "w8a8_mxfp8": 0.025, "w4a4_mxfp4": 1.6,
         "w4a4_nvfp4": 1.0}  # fmt: skip
SHAPES = {"qkv": (4096, 6144), "o": (4096, 4096), "gate_up": (4096, 28672), "down": (14336, 4096)}
FRAGILE = {"qkv": 0.6, "o": 0.35, "gate_up": 1.0, "down": 2.4}
PHASES = {"prefill": 2048, "decode": 64}
MODEL_BLOCKS, COST_BLOCKS = 6, 32


@dataclass(frozen=True, kw_only=True)
class Machine:
    name: str
    device: str
    bytes_per_s: float
    flops: dict[str, float]
    native: tuple[str, ...]


MACHINES = (
    Machine(
        name="b200",
        device="b200-sxm",
        bytes_per_s=7.7e12,
        flops=dict(zip(CHOICES, (2.2e15, 4.5e15, 4.5e15, 9e15, 9e15), strict=True)),
        native=CHOICES,
    ),
    Machine(
        name="h100",
        device="h100-sxm",
        bytes_per_s=3.35e12,
        flops=dict(zip(CHOICES, (9.9e14, 1.98e15, 9.9e14, 9.9e14, 9.9e14), strict=True)),
        native=CHOICES[:2],
    ),
)


def region_cost(machine: Machine, phase: str, role: str, choice: str) -> dict[str, Any]:
    """Roofline plus a launch and a quantisation cost, of one GEMM group."""
    depth, width = SHAPES[role]
    tokens = PHASES[phase]
    weight = depth * width * BITS[choice] / 8
    traffic = weight + 2 * tokens * (depth + width)
    compute = 2 * tokens * depth * width / machine.flops[choice]
    memory = traffic / machine.bytes_per_s
    overhead = 2e-6 + (0.0 if choice == "bf16" else 1.5e-6)
    native = choice in machine.native
    latency = max(compute, memory) + overhead
    bound = "launch" if overhead > max(compute, memory) else "compute"
    return {
        "latency_s": latency,
        "low_s": latency * 0.85,
        "high_s": latency * 1.25,
        "energy_j": latency * 700 * 0.6,
        "traffic_bytes": traffic,
        "weight_bytes": weight,
        "kv_bytes": 0,
        "bound": bound if compute >= memory or bound == "launch" else "memory",
        "status": "native" if native else "upcast",
        "note": "" if native else f"no {choice[5:]} GEMM on {machine.device}: run in bf16",
    }


def variables() -> list[dict[str, Any]]:
    return [
        {
            "name": f"blocks.{block}/{role}",
            "kind": "gemm",
            "role": role,
            "block": block,
            "relative_depth": block / (MODEL_BLOCKS - 1),
            "choices": list(CHOICES),
        }
        for block in range(MODEL_BLOCKS)
        for role in SHAPES
    ]


def cost_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for machine in MACHINES:
        for phase, tokens in PHASES.items():
            where = {"target": machine.name, "phase": phase}
            for block in range(COST_BLOCKS):
                near = round(block / (COST_BLOCKS - 1) * (MODEL_BLOCKS - 1))
                for role in SHAPES:
                    rows += [
                        where
                        | {"region": f"blocks.{block}/{role}", "choice": choice}
                        | {"variable": f"blocks.{near}/{role}"}
                        | region_cost(machine, phase, role, choice)
                        for choice in CHOICES
                    ]
                rows += [
                    where
                    | {"region": f"blocks.{block}/{role}", "choice": "fixed", "variable": ""}
                    | {"latency_s": seconds, "energy_j": seconds * 300, "bound": bound}
                    | {"weight_bytes": 0, "status": "native", "note": ""}
                    for role, seconds, bound in (
                        ("attention", tokens * 6e-9 + 4e-6, "memory"),
                        ("norm", 3e-6, "launch"),
                    )
                ]
    return rows


class Search:
    """The sums behind one synthetic run."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.variables = variables()
        self.costs = cost_rows()
        self.sensitivity = {
            (v["name"], choice): 4e-3
            * NOISE[choice]
            * FRAGILE[v["role"]]
            * (1.5 if v["block"] in (0, MODEL_BLOCKS - 1) else 0.6)
            * self.rng.lognormal(0, 0.35)
            for v in self.variables
            for choice in CHOICES
        }
        self.trials: list[dict[str, Any]] = []
        self.chosen: dict[int, dict[str, str]] = {}

    def price(self, chosen: dict[str, str]) -> dict[str, float]:
        """The cost columns of an assignment."""
        total: dict[str, float] = {}
        for row in self.costs:
            if row["choice"] not in ("fixed", chosen.get(row["variable"])):
                continue
            share = 0.5
            phase_key = f"{row['target']}.{row['phase']}.latency_s"
            total[phase_key] = total.get(phase_key, 0) + row["latency_s"]
            for quantity in ("latency_s", "energy_j"):
                key = f"{row['target']}.{quantity}"
                total[key] = total.get(key, 0) + share * row[quantity]
            key = f"{row['target']}.weight_bytes"
            if row["phase"] == "decode":
                total[key] = total.get(key, 0) + row["weight_bytes"]
        for machine in MACHINES:
            total[f"{machine.name}.peak_bytes"] = total[f"{machine.name}.weight_bytes"] + 5e9
            native = [choice in machine.native for choice in chosen.values()]
            total[f"{machine.name}.native_share"] = sum(native) / len(native)
        return total

    def add(self, source: str, chosen: dict[str, str], name: str = "") -> None:
        """Measure an assignment, unless it was measured before."""
        if source != "reference" and chosen in self.chosen.values() and source != "uniform":
            return
        number = len(self.trials)
        loss = sum(self.sensitivity[key] for key in chosen.items())
        loss *= self.rng.normal(1.1, 0.04)
        held_out = loss * self.rng.normal(1.02, 0.05)
        self.chosen[number] = chosen
        self.trials.append(
            {
                "trial": number,
                "source": source,
                "name": name,
                "state": "complete",
                "quality_loss": loss,
                "quality_stderr": loss * 0.07,
                "report_quality_loss": held_out,
                "report_quality_stderr": held_out * 0.06,
                "bits_per_byte": 1.612 + 1.3 * held_out,
                "p99_loss": loss * 6,
                "flip_rate": 0.3 * held_out**0.5,
                "native_share": 1.0,
                "digest": f"{number:016x}",
                "tied": False,
            }
            | self.price(chosen)
        )

    def run(self) -> None:
        """Reference, uniforms, a sweep of budgets, and perturbations of it."""
        names = [v["name"] for v in self.variables]
        self.add("reference", dict.fromkeys(names, "bf16"))
        for choice in CHOICES:
            self.add("uniform", dict.fromkeys(names, choice), choice)
        latency = {key: self.latency(*key) for key in self.sensitivity}
        for weight in np.geomspace(0.3, 300, 18):
            best = {
                name: min(
                    CHOICES,
                    key=lambda c: self.sensitivity[name, c] + weight * latency[name, c],
                )
                for name in names
            }
            self.add("surrogate", best)
        for parent in list(self.chosen.values())[6:]:
            for _ in range(3):
                changed = dict(parent)
                for name in self.rng.choice(names, size=3, replace=False):
                    changed[str(name)] = str(self.rng.choice(CHOICES))
                self.add("sampler", changed)
        front = self.front()
        for trial in self.trials:  # what lies far from the front has no number on the report split
            if trial["source"] == "sampler" and trial not in front:
                trial["report_quality_loss"] = trial["report_quality_stderr"] = ""

    def latency(self, name: str, choice: str) -> float:
        """Weighted latency of one variable's regions on the first machine."""
        return sum(
            0.5 * row["latency_s"]
            for row in self.costs
            if (row["variable"], row["choice"], row["target"]) == (name, choice, "b200")
        )

    def front(self) -> list[dict[str, Any]]:
        """The trials that no other beats in loss and latency."""

        def cost(trial: dict[str, Any]) -> tuple[float, float]:
            return trial["report_quality_loss"], trial["b200.latency_s"]

        measured = [t for t in self.trials if t["report_quality_loss"] != ""]
        return [
            t
            for t in measured
            if t["source"] != "reference"
            and not any(
                all(a <= b for a, b in zip(cost(o), cost(t), strict=True)) and cost(o) != cost(t)
                for o in measured
                if o["source"] != "reference"
            )
        ]

    def manifest(self) -> dict[str, Any]:
        steps = np.cumsum(self.rng.uniform(0.4, 1.2, size=len(self.trials)))
        gained = 1 - np.exp(-steps / 12)
        return {
            "format": 1,
            "dse": "0.1.0",
            "versions": {"python": "3.11.7", "torch": "2.13.0", "optuna": "5.0.0"},
            "created": "2026-11-22T01:02:03+00:00",
            "status": "complete",
            "seed": 0,
            "question": "Which GEMMs of a Llama-shaped model can run in FP4 on a B200, "
            "and what does it buy against FP8 on an H100?",
            "space": {},
            "space_file": "spaces/fp4.yaml",
            "model": {"name": "byte-gpt", "digest": "0f" * 32, "weights_note": "",
                      "description": "3.6 M parameters, bytes of English prose and Python"},
            "cost_model": {"name": "llama-3-8b", "digest": "1e" * 32},
            "proxy": "accuracy of byte-gpt, cost shape of llama-3-8b",
            "objectives": ["report_quality_loss", "b200.latency_s"],
            "metric": "bits_per_byte",
            "metric_goal": "minimise",
            "reference_metric": 1.612,
            "targets": [
                {"name": m.name, "device": m.device, "runtime": "vllm", "validated": False,
                 "note": "not validated against silicon"}
                for m in MACHINES
            ],
            "phases": [{"name": name, "share": 0.5, "dims": {"batch": 1, "tokens": tokens}}
                       for name, tokens in PHASES.items()],
            "variables": self.variables,
            "samples": {"calibration": 8, "search": 16, "report": 16},
            "forward_equivalents": {"reference": 1.0, "sensitivity": 14.2, "uniform": 5.0,
                                    "surrogate": 9.1, "sampler": 20.0, "report": 16.0,
                                    "total": 65.3},
            "elapsed_s": {"setup": 4.1, "sensitivity": 21.0, "search": 64.0, "report": 12.2},
            "hypervolume": [[15 + s, g] for s, g in zip(steps.tolist(), gained.tolist(),
                                                        strict=True)],
            "reference_point": {"quality_loss": 0.2, "b200.latency_s": 0.02},
        }  # fmt: skip


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_run(folder: Path, *, seed: int = 0) -> Path:
    """Write a run folder and give it back."""
    search = Search(seed)
    search.run()
    front = sorted(search.front(), key=lambda trial: trial["b200.latency_s"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(search.manifest()))
    write_csv(folder / "trials.csv", search.trials)
    write_csv(folder / "front.csv", front)
    write_csv(folder / "costs.csv", search.costs)
    write_csv(folder / "choices.csv", [{"trial": n, **c} for n, c in search.chosen.items()])
    write_csv(
        folder / "sensitivity.csv",
        [
            {"variable": v, "choice": c, "loss": loss, "stderr": loss * 0.15, "samples": 16}
            for (v, c), loss in search.sensitivity.items()
            if c != "bf16"
        ],
    )
    mixed = [trial for trial in front if trial["source"] != "uniform"]
    knee = mixed[len(mixed) // 2]
    (folder / "recommended.json").write_text(
        json.dumps({"trial": knee["trial"], "reason": "the knee of the front", "assignment": {}})
    )
    return folder
