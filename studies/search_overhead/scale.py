"""How long one budget of a 70B-shaped model takes to solve, on scores of a small proxy.

`python -m studies.search_overhead.scale` writes `results/scale.csv`. The graph is exported once
(minutes; needs the extra `[zoo]`), the proxy searched once (12 assignments).
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dse.explore import Overrides, run_search
from dse.explore.problem.design import open_design
from dse.explore.run import open_space
from dse.explore.solution import solve, surrogate_of
from dse.space.constraint import Constraint
from dse.zoo.export import export_shape_graph
from dse.zoo.shapes import LLAMA_SHAPES
from studies.search_overhead.run import write

HERE = Path(__file__).parent
SPACES = HERE / "spaces"
MODEL = "llama-3-70b"
COLUMNS = ("latency_s", "weight_bytes")
SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Budgets: so much of the way from the cheapest assignment to 16 bits everywhere."""
TARGETS = ("h100-sxm:vllm", "h100-sxm:tensorrt-llm", "h100-sxm:onnxruntime")
"""With the last one a tensor is stored in one format, and whoever wants another converts."""


def rows(space: Path, proxy: Path, target: str) -> Iterator[dict[str, object]]:
    """One row a budget."""
    opened = time.perf_counter()
    read, origin, folder = open_space(str(space), Overrides(targets=(target,)))
    free = open_design(read, origin=origin, folder=folder)
    seconds = time.perf_counter() - opened
    surrogate = surrogate_of(proxy, free)
    for column in COLUMNS:
        low = sum(float(part.min()) for part in free.costs.additive(column))
        low += free.costs.fixed(column)
        high = free.total(free.problem.fallback)[column]
        for share in SHARES:
            limit = low + share * (high - low)
            budget = Constraint(column=column, limit=limit)
            found = solve(replace(free, constraints=(budget,)), surrogate)
            yield {
                "target": target,
                "variables": len(free.problem.variables),
                "coupled": any(t.table.has_conversions for t in free.costs.targets),
                "open_s": round(seconds, 2),
                "column": column,
                "share": share,
                "of_16_bit": round(limit / high, 4),
                "solve_s": round(found.seconds, 3),
                "gap": "" if found.gap is None else f"{found.gap:.1e}",
                "used": round(found.costs[column] / limit, 5),
                "predicted_loss": f"{found.loss:.4g}",
            }


def main() -> None:
    """All targets and budgets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/search_overhead"))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    arguments = parser.parse_args()
    # The exporter warns of every weight that is not there.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    graph, proxy = arguments.work / f"{MODEL}.onnx", arguments.work / "proxy"
    if not graph.exists():
        export_shape_graph(LLAMA_SHAPES[MODEL], graph)
    if not proxy.exists():
        run_search(SPACES / "proxy.yaml", out=proxy)
    space = arguments.work / f"{MODEL}.yaml"
    space.write_text((SPACES / space.name).read_text())
    found = [row for target in arguments.targets for row in rows(space, proxy, target)]
    write(found, HERE / "results" / "scale.csv")


if __name__ == "__main__":
    main()
