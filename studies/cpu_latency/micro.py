"""Micro-kernels against their named baselines: does the model say who is faster?

Builds `micro.c` with gcc, checks every kernel against numpy, times them in turns on one core, and
asks the model for the same ratios: 16-bit sums and look-ups of 2-bit pairs over 32-bit sums
without VNNI (FBGEMM's and QNNPACK's kernel), and over VNNI's.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.cpu import Instructions
from hwmodels.devices.load import load_device
from hwmodels.estimators.cpu.lookup import lookup_macs_per_s
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.work.lookup import Lookup

HERE = Path(__file__).parent
ROWS, K, CALLS, TURNS = 4, 256, 20000, 15
TABLE = Lookup(index_bits=4, instructions=6.75)
"""Of 32 look-ups: two masks, a shift and a half, an or, the shuffle, an addition, and of four of
them two loads, the sum of bytes and its addition: 27 instructions for 128."""


PAIRS = (
    ("acc16", "acc32"), ("acc16", "vnni"), ("acc16_wrap", "acc32"), ("lookup", "acc32"),
    ("lookup", "vnni"),
)  # fmt: skip
"""Kernels and their baselines."""


def library(folder: Path) -> ctypes.CDLL:
    """The compiled kernels."""
    out = folder / "micro.so"
    flags = ["-O3", "-mavx2", "-mavx512vnni", "-mavx512vl", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(HERE / "micro.c"), "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _aligned(values: np.ndarray) -> np.ndarray:
    room = np.zeros(values.nbytes + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    found = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def kernels(lib: ctypes.CDLL) -> dict[str, tuple[Callable[[int], None], int]]:
    """Checked kernels: a call of so many repetitions, and the MACs of one."""
    generator = np.random.default_rng(0)
    a = _aligned(generator.integers(0, 16, (ROWS, K), dtype=np.uint8))
    wide = generator.integers(-4, 5, (K, 16)).astype(np.int8)
    narrow = generator.integers(-4, 5, (K, 32)).astype(np.int8)
    by4 = _aligned(wide.reshape(K // 4, 4, 16).transpose(0, 2, 1).copy())
    by2 = _aligned(narrow.reshape(K // 2, 2, 32).transpose(0, 2, 1).copy())
    c32, c16 = np.zeros((ROWS, 16), np.int32), np.zeros((ROWS, 32), np.int16)
    for name in ("many_acc32", "many_vnni"):
        c32[:] = 0
        getattr(lib, name)(_pointer(a), _pointer(by4), _pointer(c32), 1)
        assert (c32 == a.astype(int) @ wide.astype(int)).all(), name
    for name in ("many_acc16", "many_acc16_wrap"):
        c16[:] = 0
        getattr(lib, name)(_pointer(a), _pointer(by2), _pointer(c16), 1)
        assert (c16 == a.astype(int) @ narrow.astype(int)).all(), name
    x, w = generator.integers(0, 4, K), generator.integers(0, 4, (16, K))
    pack = lambda v: (v.reshape(-1, K // 128, 4, 32) << (2 * np.arange(4))[:, None]).sum(2)  # noqa: E731
    packed_x, packed_w = (_aligned(pack(v).astype(np.uint8).reshape(-1, K // 4)) for v in (x, w))
    table = np.array([(i & 3) * (i >> 2) for i in range(16)], dtype=np.uint8)
    sums = np.zeros(64, np.int32)
    lib.many_lookup(_pointer(packed_x), _pointer(packed_w), _pointer(table), _pointer(sums), 16)
    assert (sums[:16] == w @ x).all()
    return {
        "acc32": (lambda n: lib.many_acc32(_pointer(a), _pointer(by4), _pointer(c32), n),
                  ROWS * K * 16),
        "acc16": (lambda n: lib.many_acc16(_pointer(a), _pointer(by2), _pointer(c16), n),
                  ROWS * K * 32),
        "acc16_wrap": (lambda n: lib.many_acc16_wrap(_pointer(a), _pointer(by2), _pointer(c16), n),
                       ROWS * K * 32),
        "vnni": (lambda n: lib.many_vnni(_pointer(a), _pointer(by4), _pointer(c32), n),
                 ROWS * K * 16),
        "lookup": (lambda n: lib.many_lookup(_pointer(packed_x), _pointer(packed_w),
                                             _pointer(table), _pointer(sums), n), K),
    }  # fmt: skip


def modelled() -> dict[str, float]:
    """MACs a second of one core with 256-bit instructions, as the model has them."""
    device = load_device("zen4-2c")
    assert device.cpu is not None
    # 256-bit instructions: the machine issues twice as many of half the width.
    cpu = replace(device.cpu, lookup_bytes=32, vector_bytes=32,
                  vector_issue=2 * device.cpu.vector_issue)  # fmt: skip
    processor = Processor.of(replace(device, cpu=cpu), "torch-cpu")

    def rate(one: Instructions) -> float:
        return processor.macs_per_s(one)

    by_name = {one.name: one for one in cpu.instructions}
    return {
        "acc32": rate(by_name["avx2_int8"]),
        "acc16": rate(by_name["acc16_saturating"]),
        "acc16_wrap": rate(by_name["acc16"]),
        "vnni": rate(by_name["avx512_vnni"]),
        "lookup": lookup_macs_per_s(TABLE, processor),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = kernels(library(Path(folder)))
        rates: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(TURNS):
            for name, (call, macs) in found.items():
                calls = CALLS * (16 if name == "lookup" else 1)
                start = time.perf_counter()
                call(calls)
                rates[name].append(macs * calls / (time.perf_counter() - start))
    model = modelled()
    rows = []
    for name, baseline in PAIRS:
        ratios = np.array(rates[name]) / np.array(rates[baseline])
        rows.append({
            "kernel": name, "baseline": baseline, "gmacs": max(rates[name]) / 1e9,
            "baseline_gmacs": max(rates[baseline]) / 1e9,
            "ratio": float(np.median(ratios)), "low": float(np.quantile(ratios, 0.1)),
            "high": float(np.quantile(ratios, 0.9)), "modelled": model[name] / model[baseline],
        })  # fmt: skip
    table = pd.DataFrame(rows).round(3)
    table.to_csv(HERE / "results" / "micro.csv", index=False)
    print(table.to_string())


if __name__ == "__main__":
    main()
