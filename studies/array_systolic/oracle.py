"""SCALE-Sim's cycles: the tables that the study compares with.

Runs in SCALE-Sim's own environment, not in this project's (it needs numpy 1.26):

    python -m venv scale && scale/bin/pip install scalesim==3.0.0 'numpy<2' 'pandas<3' setuptools
    nice scale/bin/python studies/array_systolic/oracle.py

Writes `results/compute.csv` (cycles without stalls, of every layer, dataflow and array),
`results/whole.csv` (the same of a few layers by SCALE-Sim's whole simulation),
`results/stalls.csv` (cycles behind double-buffered SRAM, by SCALE-Sim and by the double buffer of
`double_buffer.py` on the same demands; the report's `Total Cycles (incl. prefetch)`),
`results/copied.csv` (the cycles of the same rows by the copy of SCALE-Sim's buffers in
`scale_sim_buffer.py`, with its faults and without one or the other) and `results/hand.csv` (the
same as `stalls.csv` of a case to count by hand).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import double_buffer
import numpy as np
import scale_sim_buffer
import scalesim.memory.double_buffered_scratchpad_mem as scratchpad
from scalesim.layout_utils import layouts
from scalesim.memory import read_buffer, write_buffer
from scalesim.scale_config import scale_config
from scalesim.single_layer_sim import single_layer_sim
from scalesim.topology_utils import topologies

RESULTS = Path(__file__).parent / "results"
DATAFLOWS = ("ws", "os", "is")
ARRAYS = ((16, 16), (8, 32), (32, 8), (32, 32))


@dataclass(frozen=True)
class Layer:
    """A convolution without padding (`height` and `width` are what it reads); depthwise where
    `groups` is not 1. A product (M, K) x (K, N) is M rows of a 1 x K input under N filters."""

    name: str
    groups: int
    height: int
    width: int
    taps_y: int
    taps_x: int
    channels: int
    filters: int
    stride: int


def product(m: int, n: int, k: int) -> Layer:
    return Layer(f"gemm_{m}x{n}x{k}", 1, m, 1, 1, 1, k, n, 1)


def convolution(size: int, taps: int, channels: int, filters: int, stride: int = 1) -> Layer:
    name = f"conv_{size}_{taps}x{taps}_{channels}_{filters}_s{stride}"
    return Layer(name, 1, size, size, taps, taps, channels, filters, stride)


def depthwise(size: int, taps: int, channels: int, stride: int = 1) -> Layer:
    name = f"depthwise_{size}_{taps}x{taps}_{channels}_s{stride}"
    return Layer(name, channels, size, size, taps, taps, 1, 1, stride)


PRODUCTS = (
    *(product(1, n, k) for n, k in ((1, 1), (1, 64), (64, 1), (10, 84), (16, 16), (17, 33))),
    *(product(1, n, k) for n, k in ((128, 512), (1000, 64), (300, 300))),
    *(product(2, n, k) for n, k in ((64, 64), (31, 65), (512, 128))),
    *(product(7, n, k) for n, k in ((7, 7), (96, 384), (33, 95))),
    *(product(16, n, k) for n, k in ((16, 16), (8, 8), (15, 17), (256, 64))),
    *(product(32, n, k) for n, k in ((32, 32), (33, 31), (128, 96))),
    *(product(49, n, k) for n, k in ((512, 40), (64, 288))),
    *(product(64, n, k) for n, k in ((64, 64), (1, 64), (100, 3), (3, 100))),
    *(product(100, n, k) for n, k in ((100, 100), (1, 1))),
    *(product(196, n, k) for n, k in ((64, 144), (48, 256))),
    *(product(333, n, k) for n, k in ((17, 19), (65, 65))),
)  # fmt: skip
CONVOLUTIONS = (
    convolution(14, 3, 3, 8), convolution(18, 3, 16, 32), convolution(34, 3, 3, 16),
    convolution(9, 3, 64, 64), convolution(9, 3, 16, 20, 2), convolution(15, 3, 8, 24, 2),
    convolution(15, 5, 4, 12), convolution(12, 5, 6, 16), convolution(7, 7, 3, 10),
    convolution(21, 7, 3, 16, 2), convolution(35, 11, 3, 12, 4), convolution(8, 1, 96, 24),
    convolution(14, 1, 24, 96), convolution(7, 1, 320, 40), convolution(13, 1, 17, 33, 2),
    convolution(3, 3, 128, 64), convolution(6, 3, 5, 7), convolution(28, 5, 1, 6),
    Layer("conv_20x9_5x3_4_18", 1, 20, 9, 5, 3, 4, 18, 1),
    Layer("conv_1x64_1x9_8_16", 1, 1, 64, 1, 9, 8, 16, 1),
    Layer("conv_64x1_4x1_20_36_s2", 1, 64, 1, 4, 1, 20, 36, 2),
)  # fmt: skip
DEPTHWISES = (
    depthwise(9, 3, 4), depthwise(16, 3, 24), depthwise(15, 3, 33, 2), depthwise(11, 5, 12),
    depthwise(9, 5, 16, 2), depthwise(7, 7, 9), depthwise(30, 3, 8), depthwise(3, 3, 40),
)  # fmt: skip
LAYERS = (*PRODUCTS, *CONVOLUTIONS, *DEPTHWISES)
WHOLE = (product(7, 7, 7), product(1, 17, 33), convolution(6, 3, 5, 7), depthwise(9, 3, 4))

STALLED = (
    product(64, 32, 32), product(128, 32, 8), product(32, 64, 48), product(100, 40, 24),
    product(1, 256, 64), product(200, 16, 16), product(48, 48, 48), product(256, 24, 4),
    convolution(10, 3, 4, 12), convolution(12, 3, 8, 16),
)  # fmt: skip
SRAM_BYTES = (384, 768, 3200)
"""Halves are whole tiles of 64 words and, in `read_buffer`, whole sets of addresses."""
WORDS_PER_CYCLE = (2, 5)
FAULTS = {
    "copied": scale_sim_buffer.Faults(),
    "counted_once": scale_sim_buffer.Faults(stalls_twice=False),
    "demand_order": scale_sim_buffer.Faults(operand_order=False),
    "neither": scale_sim_buffer.Faults(operand_order=False, stalls_twice=False),
}
"""The copy of SCALE-Sim's buffers, and the same without one of its faults, or two."""
WIDE = 64
"""Words a cycle of outputs under dataflows with partial sums, which SCALE-Sim writes for each fold
and never reads: they are left out."""

CONFIG = """
[general]
run_name = run
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
ifmapsramszkB = {sram}
filtersramszkB = {sram}
ofmapsramszkB = {sram}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
ReadRequestBuffer = 512
WriteRequestBuffer = 512
Bandwidth = {bandwidth}
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = {bandwidth}
IfmapSRAMBankNum = 1
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = {bandwidth}
FilterSRAMBankNum = 1
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
"""


def simulations(layer: Layer, **config: object) -> Iterator[single_layer_sim]:
    """SCALE-Sim set up for a layer: one simulation, of a depthwise one a channel."""
    settings = {"mode": "CALC", "sram": 1024, "bandwidth": 10} | config
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder)
        (path / "a.cfg").write_text(CONFIG.format(**settings))
        # Its topology file: "DP" in a name makes a layer of each channel.
        row = (
            "DP_layer" if layer.groups > 1 else "layer", layer.height, layer.width, layer.taps_y,
            layer.taps_x, layer.channels * layer.groups, layer.filters, layer.stride,
        )  # fmt: skip
        (path / "t.csv").write_text("header\n" + ",".join(map(str, row)) + ",\n")
        architecture, topology = scale_config(), topologies()
        architecture.read_conf_file(str(path / "a.cfg"))
        topology.load_arrays(str(path / "t.csv"))
        topology.topo_calc_hyperparams()
        for index in range(topology.get_num_layers()):
            one = single_layer_sim()
            one.set_params(index, architecture, topology, layouts(), verbose=False)
            yield one


def lines(one: single_layer_sim) -> int:
    """Cycles without stalls: lines of the demand matrices (`single_layer_sim.run`, step 1)."""
    matrices = one.op_mat_obj
    one.compute_system.set_params(
        config_obj=one.config,
        ifmap_op_mat=matrices.get_ifmap_matrix()[1],
        filter_op_mat=matrices.get_filter_matrix()[1],
        ofmap_op_mat=matrices.get_ofmap_matrix()[1],
    )
    demands = one.compute_system.get_demand_matrices()
    (found,) = {len(demand) for demand in demands}
    return int(found)


def compute() -> Iterator[dict[str, object]]:
    for layer in LAYERS:
        for rows, columns in ARRAYS:
            for dataflow in DATAFLOWS:
                runs = simulations(layer, rows=rows, columns=columns, dataflow=dataflow)
                cycles = sum(map(lines, runs))
                yield asdict(layer) | {
                    "rows": rows, "columns": columns, "dataflow": dataflow, "cycles": cycles,
                }  # fmt: skip


def whole() -> Iterator[dict[str, object]]:
    """Its own report (`Total Cycles`) of layers beside the lines of their demand matrices."""
    for layer in WHOLE:
        for dataflow in DATAFLOWS:
            chip = {"rows": 8, "columns": 8, "dataflow": dataflow}
            counted = [lines(one) for one in simulations(layer, **chip)]
            reported = []
            for one in simulations(layer, **chip):
                one.run()
                one.calc_report_data()
                reported.append((one.total_cycles, one.stall_cycles))
            yield (
                asdict(layer)
                | chip
                | {
                    "layers": len(counted),
                    "lines": sum(counted),
                    "total_cycles": sum(total for total, _ in reported),
                    "stall_cycles": sum(stalls for _, stalls in reported),
                }
            )


def stalls() -> Iterator[dict[str, object]]:
    """Cycles with memories; a bar of progress for each cycle is not drawn."""
    for module in (scratchpad, read_buffer, write_buffer):
        setattr(module, "tqdm", lambda lines, **_: lines)  # noqa: B010
    for layer, dataflow, sram, words in itertools.product(
        STALLED, DATAFLOWS, SRAM_BYTES, WORDS_PER_CYCLE
    ):
        rates = (words, words, words if dataflow == "os" else WIDE)
        chip = {"rows": 8, "columns": 8, "dataflow": dataflow}
        given = {"sram": sram, "words": words, "output_words": rates[2]}
        yield asdict(layer) | chip | given | _stalled(layer, chip, sram, rates)


def copied() -> Iterator[dict[str, object]]:
    """The rows of `stalls` by the copy of the buffers, on SCALE-Sim's demands and matrices."""
    for layer, dataflow, sram, words in itertools.product(
        STALLED, DATAFLOWS, SRAM_BYTES, WORDS_PER_CYCLE
    ):
        rates = (words, words, words if dataflow == "os" else WIDE)
        chip = {"rows": 8, "columns": 8, "dataflow": dataflow}
        (one,) = simulations(layer, mode="USER", bandwidth=words, **chip)
        lines(one)
        system = one.compute_system
        demands = [np.asarray(one, dtype=np.int64) for one in system.get_demand_matrices()]
        operands = [np.asarray(one, dtype=np.int64) for one in system.get_prefetch_matrices()]
        found = {
            name: scale_sim_buffer.cycles(demands, operands, sram, rates, faults)
            for name, faults in FAULTS.items()
        }
        yield {"name": layer.name, "dataflow": dataflow, "sram": sram, "words": words} | found


def hand() -> Iterator[dict[str, object]]:
    """A 4 x 4 input under 2 x 2 places behind two halves of 4 words, a word a cycle."""
    layer, chip = product(4, 2, 4), {"rows": 2, "columns": 2, "dataflow": "ws"}
    given = {"sram": 8, "words": 1, "output_words": WIDE}
    yield asdict(layer) | chip | given | _stalled(layer, chip, 8, (1, WIDE, WIDE))


def _stalled(
    layer: Layer, chip: dict[str, object], sram: int, words: tuple[int, int, int]
) -> dict[str, object]:
    (one,) = simulations(layer, mode="USER", bandwidth=words[0], **chip)
    memory = scratchpad.double_buffered_scratchpad()
    memory.set_params(
        word_size=1, rd_buf_active_frac=0.5, wr_buf_active_frac=0.5, verbose=False,
        ifmap_buf_size_bytes=sram, filter_buf_size_bytes=sram, ofmap_buf_size_bytes=sram,
        ifmap_backing_buf_bw=words[0], filter_backing_buf_bw=words[1],
        ofmap_backing_buf_bw=words[2], estimate_bandwidth_mode=False,
    )  # fmt: skip
    one.set_memory_system(memory)
    one.run()
    one.calc_report_data()
    demands = one.compute_system.get_demand_matrices()
    found = double_buffer.cycles([np.asarray(demand) for demand in demands], sram // 2, words)
    return {
        "lines": len(demands[0]),
        "cycles": one.overall_cycles + 1,
        "input_words": memory.ifmap_buf.num_access,
        "weight_words": memory.filter_buf.num_access,
        "buffer_cycles": found.cycles,
        "buffer_input_words": found.words[0],
        "buffer_weight_words": found.words[1],
    }


def write(name: str, rows: Iterator[dict[str, object]]) -> None:
    with (RESULTS / name).open("w", newline="") as file:
        first = next(rows)
        writer = csv.DictWriter(file, first.keys(), lineterminator="\n")
        writer.writeheader()
        for row in itertools.chain([first], rows):
            writer.writerow(row)
            file.flush()


def main() -> None:
    tables = {
        "compute": compute, "whole": whole, "stalls": stalls, "copied": copied, "hand": hand,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=[*tables])
    for name in parser.parse_args().tables:
        write(f"{name}.csv", tables[name]())


if __name__ == "__main__":
    main()
