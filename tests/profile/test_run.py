"""Profiling the processor that the tests run on."""

from __future__ import annotations

import csv
import json
from itertools import count
from pathlib import Path

import pytest
import torch

from dse.profile.clock import Clock, Repeats
from dse.profile.operators import work_of
from dse.profile.plan import Operator, standard_plan
from dse.profile.run import Profile, profile
from hwmodels.errors import MeasurementError
from hwmodels.operators.optable import read_optable

QUICK = Repeats(replays=3, replay_s=1e-4, cold_bytes=2**16, operand_bytes=2**22)
CPU = torch.device("cpu")
GEMM = {"M": 4, "K": 128, "N": 64}
ROWS = {"rows": 4, "cols": 128}
SMALL = (
    Operator.of("gemm", GEMM, "fp32"),
    Operator.of("gemm", GEMM | {"M": 8}, "fp32"),
    Operator.of("gemm", GEMM | {"M": 16}, "fp32"),
    Operator.of("softmax", ROWS, "bf16"),
)


def _profiled(path: Path, *operators: Operator, seconds: float = 60) -> Profile:
    return profile(
        operators or SMALL, path, device_name="here", device=CPU, seconds=seconds, repeats=QUICK
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _small_ones() -> list[Operator]:
    """One small operator of every queue that runs eagerly."""
    sizes = {
        "gemm": GEMM | {"M": 32},
        "bmm": {"B": 2, "M": 4, "K": 16, "N": 16},
        "attention": {"B": 1, "H": 4, "HK": 2, "S": 8, "L": 8, "D": 16, "causal": True},
        "conv2d": {"N": 1, "C": 8, "H": 7, "W": 7, "O": 8, "k": 3, "stride": 2, "groups": 8},
        "embedding": {"vocab": 100, "dim": 64, "tokens": 5},
    }
    queues = dict.fromkeys((one.op, one.dtype) for one in standard_plan(tf32=False))
    return [Operator.of(op, sizes.get(op, ROWS), dtype) for op, dtype in queues]


@pytest.mark.parametrize("operator", _small_ones(), ids=lambda one: f"{one.op}-{one.dtype}")
def test_every_operator_is_timed(operator: Operator) -> None:
    timing = Clock(CPU, QUICK).measure(work_of(operator, CPU))
    assert 0 < timing.min_us <= timing.median_us <= timing.max_us


def test_an_operator_computes_what_its_name_says() -> None:
    """Against float64; the shapes say that heads are grouped and that a stride halves the size."""
    by_op = {one.op: one for one in _small_ones() if one.dtype == "fp32"}
    for op, shape in {
        "bmm": (2, 4, 16),
        "attention": (1, 4, 8, 16),
        "conv2d": (1, 8, 4, 4),
    }.items():
        work = work_of(by_op[op], CPU)
        operands = [torch.randn(one.shape, dtype=one.dtype) for one in work.operands]
        found = work.function(*operands)
        assert found.shape == shape
        exact = work.function(*(one.double() for one in operands))
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["fp8_dynamic", "w8a8_int8_dynamic"])
def test_dynamic_quantisation_keeps_the_product(dtype: str) -> None:
    """Rows scaled to 8 bits: a few per cent of the exact product."""
    work = work_of(Operator.of("gemm", {"M": 32, "K": 256, "N": 64}, dtype), CPU)
    x = torch.randn(32, 256, dtype=torch.bfloat16)
    weight = torch.randint(-8, 8, (64, 256)).to(work.operands[1].dtype)
    exact = x.double() @ weight.double().t()
    error = (work.function(x, weight).double() - exact).norm() / exact.norm()
    assert error < 0.04


def test_the_table_is_one_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    done = _profiled(path)
    assert (done.measured, done.known, done.waiting) == (4, 0, 0)
    table = read_optable(path, timed=True)
    assert set(table.ops) == {"gemm", "softmax"}
    assert set(table.frame["runtime"]) == {"torch-eager"}


def test_queues_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    _profiled(path)
    assert {row["op"] for row in _rows(path)[:2]} == {"gemm", "softmax"}


def test_a_second_call_measures_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    _profiled(path, *SMALL[:2])
    first = path.read_text()
    again = _profiled(path)
    assert (again.measured, again.known) == (2, 2)
    assert path.read_text().startswith(first)
    assert _profiled(path).measured == 0


def test_a_torn_last_line_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    _profiled(path, *SMALL[:2])
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert _profiled(path, *SMALL[:2]).measured == 1
    assert len(_rows(path)) == 2
    assert path.read_text().startswith(whole.rpartition("\ngemm")[0])


def test_a_budget_ends_it(tmp_path: Path) -> None:
    done = _profiled(tmp_path / "ops.csv", seconds=0)
    assert (done.measured, done.waiting) == (0, 4)


def test_what_torch_cannot_run_is_given_up_with_its_reason(tmp_path: Path) -> None:
    """Groups of 128 need K to be a multiple of it: torch has no such kernel."""
    odd = [Operator.of("gemm", {"M": m, "K": 100, "N": 64}, "w4a16") for m in (1, 2, 3, 4)]
    done = _profiled(tmp_path / "ops.csv", *odd, *SMALL)
    assert done.measured == 4
    (what, why), *others = done.refused
    assert what == "gemm w4a16 torch-eager"
    assert why
    assert not others


def test_a_queue_begins_with_little_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that every look moves by a second: two are over when one operator is done."""
    monkeypatch.setattr("dse.profile.run.monotonic", count().__next__)
    path = tmp_path / "ops.csv"
    huge = Operator.of("gemm", {"M": 8192, "K": 8192, "N": 8192}, "fp32")
    assert _profiled(path, huge, *SMALL[:2], seconds=2).waiting == 2
    assert json.loads(_rows(path)[0]["shape"])["M"] == SMALL[0].shape["M"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ops.csv", "op,shape\n", "not a table of dse profile"),
        ("ops.csv.gz", "", "a name that ends in .csv"),
    ],
)
def test_another_table_is_not_appended_to(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(MeasurementError, match=message):
        _profiled(path)
    assert path.read_text() == content


def test_a_table_of_another_machine_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    _profiled(path)
    with pytest.raises(MeasurementError, match="measured on 'here', not 'there'"):
        profile(SMALL, path, device_name="there", device=CPU, seconds=1, repeats=QUICK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_gpu_is_said_plainly(tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    with pytest.raises(MeasurementError, match="use --compute cpu"):
        profile(SMALL, tmp_path / "ops.csv", device_name="x", device=cuda, seconds=1)
