"""Are the energies of a mapping ZigZag's, and its search's best mappings ours?

Usage: python -m studies.array_energy

Prices ZigZag's mappings (`results/zigzag.json` and, of a Llama-3-8B decoder layer on two cores,
`results/llama.json`, which `oracle.py` writes) and searches for better ones. Writes
`results/components.csv` and `results/llama.csv` (energy by operand and level),
`results/search.csv` (energy x delay of both mappings, in our model and, once `oracle.py ours` has
run, in ZigZag's) and
`results/ours.json` (our orders of loops, for ZigZag). Prints the README's tables.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd

from hwmodels.devices.spatial import Goal
from hwmodels.estimators.array.schedule import Schedule, Task, schedule
from hwmodels.estimators.array.timing import cycles_of
from hwmodels.estimators.array.traffic import Placed
from hwmodels.estimators.array.uneven import decided_unevenly
from studies.array_energy.ours import (
    OPERANDS,
    Case,
    mac_pj,
    order_of,
    placed,
    zigzag_mapping,
)

RESULTS = Path(__file__).parent / "results"
TILES = ("whole", "fitting")
"""Whether tiles of main memory are waited for as a whole, or second halves are where they fit."""
READ, WRITTEN = ("rd_out_to_low", "rd_out_to_high"), ("wr_in_by_low", "wr_in_by_high")


def read(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def components(case: Case) -> pd.DataFrame:
    """Energy of ZigZag's mapping by operand and level, in both models, pJ."""
    where = placed(case)
    levels = where.hierarchy.levels
    _, crossings = decided_unevenly(where, zigzag_mapping(case))
    rows = [("multiply", "array", case["mac_pj"], _mac_pj(case, where))]
    for tensor, operand in OPERANDS.items():
        holding = [index for index, level in enumerate(levels) if tensor in level.holds]
        for index, theirs in zip(holding, case["energy_pj"][operand], strict=True):
            found = 1e12 * sum(
                float(one.read[0]) * levels[index].read_j
                + float(one.written[0]) * levels[index].write_j
                for one in crossings
                if (one.level, one.tensor) == (index, tensor)
            )
            told = sum(theirs[way] for way in (*READ, *WRITTEN))
            rows.append((tensor, levels[index].name, told, found))
    table = pd.DataFrame(rows, columns=["operand", "level", "zigzag_pj", "ours_pj"]).round(1)
    table.insert(0, "case", case["case"])
    table.insert(1, "layer", case["layer"])
    return table


def _mac_pj(case: Case, where: Placed) -> float:
    return where.nest.macs * mac_pj(case)


def cases() -> list[Case]:
    """Layers that ZigZag searched: first those that the model was looked at with."""
    return [*read("zigzag"), *read("fresh")]


def searched(case: Case, goal: Goal = "edp", *, whole: bool = False) -> Schedule:
    """Our search's mapping, by energy x delay if nothing else is asked for."""
    where = placed(case, whole=whole)
    task = Task(nest=where.nest, mac_j=mac_pj(case) * 1e-12)
    return schedule(where.hierarchy, task, goal)


def compared(case: Case) -> dict[str, Any]:
    """Energy x delay of both searches' mappings in our model, pJ x cycles, and time taken."""
    rows: dict[str, Any] = {"case": case["case"], "layer": case["layer"]}
    for tiles in TILES:
        where = placed(case, whole=tiles == "whole")
        found, _ = decided_unevenly(where, zigzag_mapping(case))
        energy = 1e12 * float(found.energy_j[0]) + _mac_pj(case, where)
        cycles = float(cycles_of(where, found)[0][0])
        schedule.cache_clear()
        begin = time.process_time()
        ours = searched(case, whole=tiles == "whole")
        seconds = time.process_time() - begin
        rows |= {
            f"zigzag_edp_{tiles}": energy * cycles,
            f"zigzag_cycles_{tiles}": round(cycles / case["cycles"], 3),
            f"ours_edp_{tiles}": 1e12 * ours.cost.energy_j * ours.cost.cycles,
            f"gap_{tiles}": round(ours.cost.gap, 3),
        }
    least = searched(case, "energy").cost.energy_j
    rows["least_energy"] = round(1e12 * least / case["total_pj"], 3)
    rows["times_faster"] = round(case["cpu_s"] / seconds)
    return rows


def search_table() -> pd.DataFrame:
    every = cases()
    table = pd.DataFrame([compared(case) for case in every])
    path = RESULTS / "ours_in_zigzag.json"
    told = read(path.stem) if path.exists() else []
    theirs = {(one["case"], one["layer"], one["tiles"]): one for one in told}
    for tiles in TILES:
        ours, zigzag = table[f"ours_edp_{tiles}"], table[f"zigzag_edp_{tiles}"]
        table[f"in_ours_{tiles}"] = (ours / zigzag).round(3)
        keys = [(case["case"], case["layer"], tiles) for case in every]
        table[f"in_zigzag_{tiles}"] = [
            round(_edp(theirs[key]) / _edp(case), 3) if key in theirs else float("nan")
            for key, case in zip(keys, every, strict=True)
        ]
    return table


def _edp(case: Case) -> float:
    return float(case["total_pj"] * case["cycles"])


def orders() -> list[dict[str, Any]]:
    """Our mappings as ZigZag takes them: loops, innermost first; those whose steps are whole."""
    found = []
    for case in cases():
        for tiles in TILES:
            ours = searched(case, whole=tiles == "whole")
            order = order_of(ours.placed, ours.mapping)
            steps = math.prod(size for _, size in order)
            if steps == case["computing_cycles"]:
                named = {key: case[key] for key in ("case", "layer", "spatial")}
                found.append(named | {"tiles": tiles, "order": order})
    return found


def published() -> tuple[str, str, str]:
    """The README's tables."""
    table = pd.read_csv(RESULTS / "components.csv")
    table["error"] = (table["ours_pj"] / table["zigzag_pj"] - 1).abs() * 100
    first = [
        "| architecture | layers | components | within 10 % | worst |",
        "|---|---|---|---|---|",
    ]
    for name, rows in table.groupby("case", sort=False):
        near = (rows["error"] <= 10).sum()
        first.append(
            f"| {name} | {', '.join(rows['layer'].unique())} | {len(rows)} | {near} "
            f"| {rows['error'].max():.1f} % |"
        )
    second = [
        "| architecture, layer | its cycles | halves where they fit: in our model | in ZigZag's "
        "| gap stated | whole: in our model | in ZigZag's | gap stated | energy alone "
        "| processor time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    second += [
        f"| {row['case']}, {row['layer']} | {row['zigzag_cycles_fitting']:.2f} "
        + "".join(
            f"| {row[f'in_ours_{tiles}']:.2f} | {_shown(row[f'in_zigzag_{tiles}'])} "
            f"| {100 * row[f'gap_{tiles}']:.0f} % "
            for tiles in reversed(TILES)
        )
        + f"| {row['least_energy']:.2f} | 1 : {row['times_faster']} |"
        for row in pd.read_csv(RESULTS / "search.csv").to_dict("records")
    ]
    return "\n".join(first), "\n".join(second), "\n".join(_llama())


def _llama() -> list[str]:
    """The table of the decoder layer: energy of each product and of main memory, both sums."""
    found = [
        "| product | energy, uJ | ours over ZigZag's | main memory's | components within 0.1 % |",
        "|---|---|---|---|---|",
    ]
    table = pd.read_csv(RESULTS / "llama.csv")
    for layer, rows in table.groupby("layer", sort=False):
        main = rows[rows["level"] == "dram"]
        near = ((rows["ours_pj"] / rows["zigzag_pj"] - 1).abs() <= 1e-3).sum()
        found.append(
            f"| {layer} | {rows['zigzag_pj'].sum() / 1e6:.1f} | {_over(rows):.3f} "
            f"| {_over(main):.3f} | {near} of {len(rows)} |"
        )
    return found


def _over(rows: pd.DataFrame) -> float:
    return float(rows["ours_pj"].sum() / rows["zigzag_pj"].sum())


def _shown(ratio: float) -> str:
    return "-" if math.isnan(ratio) else f"{ratio:.2f}"


if __name__ == "__main__":
    for sources, name in ((("zigzag", "fresh"), "components"), (("llama",), "llama")):
        tables = [components(case) for source in sources for case in read(source)]
        pd.concat(tables).to_csv(RESULTS / f"{name}.csv", index=False)
    (RESULTS / "ours.json").write_text(json.dumps(orders(), indent=1) + "\n")
    search_table().to_csv(RESULTS / "search.csv", index=False)
    print(*published(), sep="\n\n")
