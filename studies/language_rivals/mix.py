"""Mixes of llama.cpp's blocks by `dse`'s scores, in the bytes of llama.cpp's own mixes.

`python -m studies.language_rivals.mix WORK [MIX...]`: every matrix and the table may take any
block that its rows allow; the knapsack's best in the bytes of a mix, under the rounding of
`blocks`. Scores stay in WORK/mix/sensitivity.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from dse.explore.measure.session import prepare
from dse.explore.solve.solver import Budget, solve
from dse.sensitivity.score import score as scored
from dse.space.load import parse_space
from studies.language_rivals import allocations, blocks, llamacpp, network, score, text
from studies.language_rivals.dse_scores import splits

SMALL = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
"""Blocks of 32: for any row."""
SUPER = ("q4_k", "q5_k", "q6_k")
"""Blocks of 256, that rows of the down matrices are multiples of."""
SPACE = """
model: {work}/relabelled.onnx
data: {{source: {work}/tokens.npz, calibration: 8, search: 8, report: 8, batch: 4}}
scenario: {{phases: {{call: {{share: 1, dims: {{batch: 1, sequence: 128}}}}}}}}
targets: [{{name: cpu, device: xeon-8480, runtime: llama-cpp}}]
matrices: apart
candidates:
  - {{match: {{kind: attention}}, use: [bf16]}}
  - {{match: {{role: down}}, use: [{every}]}}
  - {{match: {{}}, use: [{small}]}}
objectives: [quality_loss, weight_bytes]
"""
Floats = NDArray[np.float32]
Types = dict[str, str]
Scores = dict[str, dict[str, float]]
"""Tensor -> type -> score."""


def main() -> None:
    """Scores once, then a row for each mix whose bytes are to be met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("mixes", nargs="*", default=[*llamacpp.MIXES[:2]])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = scores(asked.work)
    full = network.weights_of(asked.work / "relabelled.onnx")
    before = _seconds()
    seen = {f"{name}.weight": one for name, one in allocations.moments(asked.work, full).items()}
    passes = _seconds() - before
    for mix in asked.mixes:
        own = {name: kind.lower() for name, kind in llamacpp.types_of(full, mix).items()}
        limit = held(full, own)
        chosen = allocation(found, full, limit)
        (asked.work / "mix" / f"{mix}.json").write_text(json.dumps(chosen, indent=1))
        table = own[network.EMBEDDING]
        kept = {**found, network.EMBEDDING: {table: found[network.EMBEDDING][table]}}
        tried = {"mix": chosen, "mix with its table": allocation(kept, full, limit)}
        for name, types in ({"llama.cpp's": own} | tried).items():
            total = sum(found[tensor][kind] for tensor, kind in types.items())
            print(mix, name, f"scores {total:.4f}", _counts(types))
        for name, types, learned in (
            ("mix", chosen, False),
            ("mix, GPTQ,", chosen, True),
            ("mix with its table", tried["mix with its table"], False),
        ):
            if types is not chosen and chosen[network.EMBEDDING] == table:
                continue  # that is no other mix
            before = _seconds()
            weights = dict(full)
            for tensor, kind in types.items():
                weights[tensor] = blocks.rounded(
                    full[tensor], tensor, kind, seen[tensor], learned=learned
                )
            score.append(
                asked.work, tool="dse", recipe=f"{name} in the bytes of {mix}", weights=weights,
                held=held(full, types), whole=True, forwards=2.0,
                cpu_seconds=score.spent(asked.work)["dse, blocks"] + passes + _seconds() - before,
            )  # fmt: skip


def scores(work: Path) -> Scores:
    """Of every tensor in every type that it can take; from the file if it is there."""
    path = work / "mix" / "sensitivity.csv"
    if not path.exists():
        names = {
            key: ", ".join(f"{{name: {one}, weight: {one}}}" for one in some)
            for key, some in (("small", SMALL), ("every", (*SMALL, *SUPER)))
        }
        space = parse_space(SPACE.format(work=work, **names), origin="language_rivals")
        session = prepare(space, origin="language_rivals", folder=work, splits=splits(work))
        problem = session.design.problem
        table = scored(session.evaluator, problem, "gradient", samples=text.SEARCH)
        path.parent.mkdir(exist_ok=True)
        path.write_text(table.to_csv(problem))
        score.note_spent(work, "dse, blocks")
    found: Scores = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["choice"] in (*SMALL, *SUPER):
                name = row["modules"]
                tensor = f"{name}.weight" if name.endswith("_proj") else network.EMBEDDING
                found.setdefault(tensor, {})[row["choice"]] = float(row["loss"])
    return found


def allocation(found: Scores, full: Mapping[str, Floats], limit: float) -> Types:
    """The type of every tensor: the least sum of scores within so many bytes of a file."""
    costs = tuple(
        np.array([size(full[name], kind) for kind in kinds]) for name, kinds in found.items()
    )
    vectors = held(full, {})
    losses = [np.array([*kinds.values()]) for kinds in found.values()]
    point = solve(losses, [Budget(costs=costs, limit=limit - vectors)])
    assert point is not None
    return {
        name: [*kinds][choice] for (name, kinds), choice in zip(found.items(), point, strict=True)
    }


def size(weight: Floats, kind: str) -> float:
    """Bytes of a tensor."""
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    return weight.size / elements * size


def held(full: Mapping[str, Floats], types: Types) -> float:
    """Bytes of tensors of these types and of all vectors, which stay in float32."""
    vectors = sum(4 * weight.size for weight in full.values() if weight.ndim == 1)
    return vectors + sum(size(full[name], kind) for name, kind in types.items())


def _counts(types: Types) -> dict[str, str]:
    """Matrices of every type, by their kind."""
    found: dict[str, Counter[str]] = {}
    for name, kind in types.items():
        found.setdefault(name.split(".")[-2], Counter())[kind] += 1
    return {
        matrix: " ".join(f"{count} {kind}" for kind, count in sorted(part.items()))
        for matrix, part in found.items()
    }


def _seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


if __name__ == "__main__":
    main()
