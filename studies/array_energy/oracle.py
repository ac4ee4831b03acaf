"""ZigZag's mappings and energies: what the study compares with.

Runs in ZigZag's own environment, not in this project's:

    python -m venv zz && zz/bin/pip install zigzag-dse==3.9.1 six
    nice zz/bin/python studies/array_energy/oracle.py

Writes `results/zigzag.json`: for every architecture that ZigZag ships and layer, the mapping with
the least energy x delay that its search finds (loma, at most `LOOPS` temporal loops), and what it
says of energy and elements by operand, level and direction, of cycles, and how long it took.
`oracle.py fresh` does so for layers and architectures on which nothing was chosen and writes
`results/fresh.json`, `oracle.py llama` for the products of a Llama-3-8B decoder layer on
`two_cores.yaml` and writes `results/llama.json`. `oracle.py ours` instead gives ZigZag the orders
of loops of `results/ours.json`, which `python -m studies.array_energy` writes; it writes
`results/ours_in_zigzag.json`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
import zigzag
from zigzag.api import get_hardware_performance_zigzag

RESULTS = Path(__file__).parent / "results"
HARDWARE = Path(zigzag.__file__).parent / "inputs" / "hardware"
LOOPS = 5
FEW = 6
"""Of products of a Llama-3-8B layer."""
LAYERS: dict[str, dict[str, int]] = {
    "conv3x3": {"K": 24, "C": 28, "OY": 14, "OX": 14, "FY": 3, "FX": 3},
    "conv1x1": {"K": 96, "C": 56, "OY": 8, "OX": 8, "FY": 1, "FX": 1},
    "matmul": {"K": 192, "C": 112, "OY": 1, "OX": 64, "FY": 1, "FX": 1},
}
SPATIAL = {
    "eyeriss_like": {"D1": ["C, 14"], "D2": ["K, 12"]},
    "tpu_like": {"D1": ["K, 24"], "D2": ["C, 28"]},
    "edge_tpu_like": {"D1": ["K, 8"], "D2": ["C, 7"], "D3": ["OX, 2"], "D4": ["OY, 1"]},
}
NEW_LAYERS: dict[str, dict[str, int]] = {
    "conv5x5": {"K": 96, "C": 112, "OY": 8, "OX": 8, "FY": 5, "FX": 5},
    "wide": {"K": 288, "C": 224, "OY": 1, "OX": 40, "FY": 1, "FX": 1},
}
NEW_SPATIAL = {
    **SPATIAL,
    "ascend_like": {"D1": ["K, 16"], "D2": ["C, 16"], "D3": ["OX, 2"], "D4": ["OY, 2"]},
    "meta_prototype": {"D1": ["K, 32"], "D2": ["C, 2"], "D3": ["OX, 4"], "D4": ["OY, 4"]},
    "tesla_npu_like": {"D1": ["K, 32"], "D2": ["OX, 8"], "D3": ["OY, 4"]},
}
"""Those of the mappings that ZigZag ships, as far as a layer has rows."""
ROWS = {"eyeriss_like_rows": {"D1": ["OY, 14"], "D2": ["K, 12"]}}
"""Windows of neighbouring places overlap."""
LLAMA: dict[str, dict[str, int]] = {
    "prefill, q": {"K": 4096, "C": 4096, "OX": 512},
    "prefill, k and v": {"K": 2048, "C": 4096, "OX": 512},
    "prefill, scores of a key head": {"K": 512, "C": 128, "OX": 2048},
    "prefill, values of a key head": {"K": 128, "C": 512, "OX": 2048},
    "prefill, gate and up": {"K": 28672, "C": 4096, "OX": 512},
    "prefill, down": {"K": 4096, "C": 14336, "OX": 512},
    "decode, q": {"K": 4096, "C": 4096, "OX": 1},
    "decode, k and v": {"K": 2048, "C": 4096, "OX": 1},
    "decode, scores of a key head": {"K": 2048, "C": 128, "OX": 4},
    "decode, values of a key head": {"K": 128, "C": 2048, "OX": 4},
    "decode, gate and up": {"K": 28672, "C": 4096, "OX": 1},
    "decode, down": {"K": 4096, "C": 14336, "OX": 1},
}
"""512 tokens, and one token behind 2,048; the four query heads of a key head are rows."""


def workload(sizes: dict[str, int], sum_bits: int) -> list[dict[str, Any]]:
    dims = ("B", "K", "C", "OY", "OX", "FY", "FX")
    return [
        {
            "id": 0, "name": "layer", "operator_type": "Conv",
            "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
            "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
            "loop_dims": list(dims),
            "loop_sizes": [sizes.get(dim, 1) for dim in dims],
            "operand_precision": {"W": 8, "I": 8, "O": sum_bits, "O_final": 8},
            "operand_source": {"W": 0, "I": 0},
        }
    ]  # fmt: skip


def run(
    architecture: Path,
    sizes: dict[str, int],
    spatial: dict[str, list[str]],
    order: list[list[Any]] | None = None,
    *,
    sum_bits: int = 16,
    loops: int = LOOPS,
) -> dict[str, Any]:
    """The mapping with the least energy x delay, or the one with an order of loops."""
    mapping: dict[str, Any] = {
        "name": "default",
        "spatial_mapping": spatial,
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
    if order is not None:
        mapping["temporal_ordering"] = order
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        (folder / "mapping.yaml").write_text(yaml.safe_dump([mapping]))
        (folder / "work.yaml").write_text(yaml.safe_dump(workload(sizes, sum_bits)))
        begin = time.process_time()
        _, _, found = get_hardware_performance_zigzag(
            str(folder / "work.yaml"), str(architecture),
            str(folder / "mapping.yaml"), opt="EDP", dump_folder=name, lpf_limit=loops,
            nb_spatial_mappings_generated=1, loma_show_progress_bar=False,
        )  # fmt: skip
        seconds = time.process_time() - begin
    cost = found[0][1][0][0]
    origin = cost.mapping.temporal_mapping.mapping_dic_origin
    return {
        "temporal": {
            str(operand): [[[str(loop), int(size)] for loop, size in level] for level in levels]
            for operand, levels in origin.items()
        },
        "energy_pj": _by_direction(cost.mem_energy_breakdown_further),
        "elements": {
            str(operand): [
                {d.value: n for d, n in one.attributes["data_elem_move_count"].data.items()}
                for one in levels
            ]
            for operand, levels in cost.mapping.unit_mem_data_movement.items()
        },
        "mac_pj": cost.mac_energy,
        "total_pj": cost.energy_total,
        "cycles": cost.latency_total2,
        "computing_cycles": cost.ideal_temporal_cycle,
        "cpu_s": round(seconds, 2),
    }


def shipped(architecture: str) -> Path:
    return HARDWARE / f"{architecture}.yaml"


def _by_direction(found: dict[Any, Any]) -> dict[str, list[dict[str, float]]]:
    return {
        str(operand): [{d.value: float(e) for d, e in one.data.items()} for one in levels]
        for operand, levels in found.items()
    }


def searched() -> list[dict[str, Any]]:
    found = []
    cases = [(name, name, layer) for name in SPATIAL for layer in LAYERS]
    cases += [("eyeriss_like_rows", "eyeriss_like", "conv3x3")]
    for name, architecture, layer in cases:
        spatial = (SPATIAL | ROWS)[name]
        case = {"case": name, "layer": layer, "sizes": LAYERS[layer], "spatial": spatial}
        found.append(case | run(shipped(architecture), LAYERS[layer], spatial))
        print(name, layer, found[-1]["total_pj"], found[-1]["cycles"], found[-1]["cpu_s"])
    return found


def fresh() -> list[dict[str, Any]]:
    found = []
    for name, axes in NEW_SPATIAL.items():
        for layer, sizes in NEW_LAYERS.items():
            spatial = {axis: [_at_most(loop, sizes) for loop in one] for axis, one in axes.items()}
            case = {"case": name, "layer": layer, "sizes": sizes, "spatial": spatial}
            found.append(case | run(shipped(name), sizes, spatial))
            print(name, layer, found[-1]["total_pj"], found[-1]["cycles"], found[-1]["cpu_s"])
    return found


def _at_most(unrolled: str, sizes: dict[str, int]) -> str:
    """No more places than a loop has steps."""
    loop, size = unrolled.split(", ")
    return f"{loop}, {min(int(size), sizes[loop])}"


def ours() -> list[dict[str, Any]]:
    found = []
    for case in json.loads((RESULTS / "ours.json").read_text()):
        architecture = case["case"].removesuffix("_rows")
        sizes = (LAYERS | NEW_LAYERS)[case["layer"]]
        one = run(shipped(architecture), sizes, case["spatial"], case["order"])
        kept = {key: case[key] for key in ("case", "layer", "tiles")}
        found.append(kept | {key: one[key] for key in ("total_pj", "cycles")})
    return found


def llama() -> list[dict[str, Any]]:
    """Cores share out rows where there are many, else output channels."""
    found = []
    for layer, sizes in LLAMA.items():
        shared = "OX" if sizes["OX"] > 32 else "K"
        spatial = {"D1": ["K, 32"], "D2": ["C, 32"], "D3": [f"{shared}, 2"]}
        case = {"case": "two_cores", "layer": layer, "sizes": sizes, "spatial": spatial}
        one = run(RESULTS.parent / "two_cores.yaml", sizes, spatial, sum_bits=32, loops=FEW)
        found.append(case | {"sum_bits": 32} | one)
        print(layer, one["total_pj"], one["cycles"], one["cpu_s"])
    return found


TABLES = {
    "ours": ("ours_in_zigzag", ours),
    "llama": ("llama", llama),
    "fresh": ("fresh", fresh),
    "": ("zigzag", searched),
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    name, table = TABLES["".join(sys.argv[1:])]
    (RESULTS / f"{name}.json").write_text(json.dumps(table(), indent=1) + "\n")
