"""Do sensitivities of byte-gpt rank those of SmolLM2?

`python -m studies.proxy_transfer.run WORK` (needs the packages of `studies.language_rivals`; WORK
keeps the network and its tokens, which that study shares).
"""

from __future__ import annotations

import argparse
import csv
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from dse.explore.measure.session import Session, prepare
from dse.explore.solve.surrogate import Surrogate
from dse.graph.ir.assignment import Assignment
from dse.sensitivity.score import score
from dse.space.load import load_space
from dse.space.problem import Point, Problem
from dse.space.schema import Data, Space
from studies.language_rivals import network, text

HERE = Path(__file__).parent
SPACE = HERE.parents[1] / "spaces" / "fp4.yaml"
DEPTHS = 6
"""Layers of byte-gpt: SmolLM2's 30 fall into as many parts."""
DIRECT = ("w4a4_nvfp4",)
"""Formats that parts of SmolLM2 are measured in, besides gradient scores of all."""
WINDOWS = 2
"""Of 256 tokens, that SmolLM2 is scored on."""
CELL_WINDOWS = 1
"""Of 256 tokens, that parts of SmolLM2 are measured on."""
PROXY_WINDOWS = 8
"""Of 256 bytes, that byte-gpt is scored on."""
FORMATS = ("bf16", "w8a8_fp8_dynamic", "w4a4_nvfp4", "w4a4_mxfp4")
"""Those of the space whose weights need no data: ranges of `w4a16` take most of the set-up."""
DRAWS = 2000
Table = Mapping[tuple[str, int, str], float]
"""(role, part of the depth, format) -> loss of all regions there."""


def sessions(work: Path) -> dict[str, Session]:
    """Both networks under the candidates of `spaces/fp4.yaml`, priced as Llama-3-8B on a B200."""
    space = load_space(SPACE)
    rules = [
        rule.model_copy(update={"use": tuple(use for use in rule.use if use in FORMATS)})
        if rule.match.kind == "gemm"
        else rule.model_copy(update={"use": ("bf16",)})
        for rule in space.candidates
    ]
    only = space.model_copy(update={
        "candidates": tuple(rules), "ties": (),
        "targets": tuple(one for one in space.targets if one.name == "b200"),
        "objectives": ("quality_loss", "latency_s"), "constraints": (),
    })  # fmt: skip
    data = Data(
        source=str(work / "tokens.npz"), calibration=text.CALIBRATION, search=text.SEARCH,
        report=WINDOWS, batch=1,
    )  # fmt: skip
    large = only.model_copy(update={"model": str(work / "relabelled.onnx"), "data": data})
    return {"byte-gpt": _session(only), "smollm2": _session(large)}


def _session(space: Space) -> Session:
    return prepare(space, origin=str(SPACE), folder=SPACE.parent)


def scored(session: Session, method: str, samples: int) -> Surrogate:
    """Scores of every choice alone."""
    problem = session.design.problem
    table = score(session.evaluator, problem, method, samples=samples)  # type: ignore[arg-type]
    return Surrogate(losses=table.losses(problem))


def cells(problem: Problem, surrogate: Surrogate) -> dict[tuple[str, int, str], float]:
    """Scores summed by role and part of the depth; what is no layer's is left out."""
    found: dict[tuple[str, int, str], float] = {}
    for variable, losses in zip(problem.variables, surrogate.losses, strict=True):
        if variable.kind != "gemm" or len(variable.choices) < 2:
            continue
        for choice, loss in zip(variable.choices, losses.tolist(), strict=True):
            key = (variable.role, _part(variable.relative_depth), choice.name)
            found[key] = found.get(key, 0.0) + loss
    return found


def _part(depth: float) -> int:
    return min(int(depth * DEPTHS), DEPTHS - 1)


def measured_cells(session: Session, formats: Sequence[str]) -> dict[tuple[str, int, str], float]:
    """The loss of all regions of a role in a part of the depth together, measured."""
    problem = session.design.problem
    found = {}
    for name in formats:
        for role, part in sorted({(r, p) for r, p, _ in cells(problem, _nothing(problem))}):
            point = [
                variable.index(name) or 0
                if (variable.kind, variable.role, _part(variable.relative_depth))
                == ("gemm", role, part)
                else 0
                for variable in problem.variables
            ]
            taken = _network(session, tuple(point))
            quality = session.evaluator.measure(taken, samples=CELL_WINDOWS)
            found[role, part, name] = quality.loss
            print(role, part, name, f"{quality.loss:.5f}", flush=True)
    return found


def _nothing(problem: Problem) -> Surrogate:
    return Surrogate(losses=tuple(np.zeros(len(one.choices)) for one in problem.variables))


def _network(session: Session, point: Point) -> Assignment:
    return session.design.networks.measured(point)


def correlation(first: Table, second: Table, name: str) -> tuple[float, float, float, int]:
    """Spearman's rho over cells of one format, with a 95 % bootstrap interval over cells."""
    keys = sorted(key for key in first if key in second and key[2] == name)
    pairs = np.array([[first[key], second[key]] for key in keys])
    draw = np.random.default_rng(0)
    drawn = [
        spearmanr(*pairs[draw.integers(0, len(pairs), len(pairs))].T).statistic
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(spearmanr(*pairs.T).statistic), float(low), float(high), len(pairs)


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _seconds(what: str) -> None:
    print(f"{what}: {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} CPU s", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    network.write(work)
    text.write(work)
    both = sessions(work)
    small, large = both["byte-gpt"], both["smollm2"]
    _seconds("opened")
    proxy = {method: scored(small, method, PROXY_WINDOWS) for method in ("gradient", "direct")}
    _seconds("byte-gpt scored")
    own = scored(large, "gradient", WINDOWS)
    _seconds("smollm2 scored")
    tables = {
        method: cells(small.design.problem, surrogate) for method, surrogate in proxy.items()
    }
    gradient = cells(large.design.problem, own)
    direct = measured_cells(large, DIRECT)
    _seconds("smollm2 measured by cells")
    write(
        HERE / "results" / "cells.csv",
        [
            {
                "role": role, "part": part, "format": name,
                "byte_gpt_direct": f"{tables['direct'][role, part, name]:.6g}",
                "byte_gpt_gradient": f"{tables['gradient'][role, part, name]:.6g}",
                "smollm2_gradient": f"{value:.6g}",
                "smollm2_direct": f"{direct.get((role, part, name), float('nan')):.6g}",
            }
            for (role, part, name), value in sorted(gradient.items())
            if value and (role, part, name) in tables["direct"]
        ],
    )  # fmt: skip
    rows = []
    for name in sorted({key[2] for key, value in gradient.items() if value and key[2] != "bf16"}):
        for method, table in tables.items():
            pairs = {"smollm2 gradient": gradient}
            if name in DIRECT:
                pairs["smollm2 direct"] = direct
            for label, other in pairs.items():
                rho, low, high, count = correlation(table, other, name)
                rows.append({
                    "format": name, "first": f"byte-gpt {method}", "second": label,
                    "cells": count, "spearman": f"{rho:.2f}", "low": f"{low:.2f}",
                    "high": f"{high:.2f}",
                })  # fmt: skip
        if name in DIRECT:
            rho, low, high, count = correlation(gradient, direct, name)
            rows.append({
                "format": name, "first": "smollm2 gradient", "second": "smollm2 direct",
                "cells": count, "spearman": f"{rho:.2f}", "low": f"{low:.2f}",
                "high": f"{high:.2f}",
            })  # fmt: skip
    write(HERE / "results" / "correlation.csv", rows)
    _seconds("all")


if __name__ == "__main__":
    main()
