"""Re-execution downstream of a change."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dse.execute.program.program import Program
from dse.execute.program.trace import Execution
from tests.execute.conftest import Exported

NAMES = [
    "gpt2-dynamo18", "llama-dynamo18", "llama-dynamo23", "resnet18-dynamo18",
    "vit-torchscript17", "recurrent-torchscript14",
]  # fmt: skip
BUDGETS = [0, 50_000, 2**30]


@dataclass(frozen=True)
class Grid:
    """Rounds to multiples of a step; equal grids are equal."""

    step: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.round(x / self.step) * self.step


def sites(program: Program) -> list[str]:
    """Operands and outputs that hold floats."""
    found = []
    for node in program.graph.nodes:
        operands = [(f"in{i}", name) for i, name in enumerate(node.inputs)]
        operands += [(f"out{i}", name) for i, name in enumerate(node.outputs)]
        found += [
            f"{node.name}/{operand}"
            for operand, name in operands
            if name in program.graph.types and program.graph.types[name].dtype == "float32"
        ]
    return found


def chosen(program: Program, rng: random.Random, count: int) -> dict[str, Grid]:
    keys = rng.sample(sites(program), min(count, len(sites(program))))
    return {key: Grid(rng.choice([2**-6, 2**-4])) for key in keys}


def assert_identical(one: Execution, other: Execution) -> None:
    assert one.outputs.keys() == other.outputs.keys()
    for name, value in one.outputs.items():
        # As bits: some grids make NaN, which is not equal to itself.
        assert torch.equal(value.view(torch.int32), other.outputs[name].view(torch.int32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep_bytes", BUDGETS)
def test_rerun_is_a_full_run_bit_for_bit(
    name: str, keep_bytes: int, exported: Callable[[str], Exported]
) -> None:
    model = exported(name)
    rng = random.Random(f"{name}{keep_bytes}")
    for count in (0, 1, 2, 5):
        base = chosen(model.program, rng, rng.choice([0, 3]))
        trace = model.program.trace(model.feeds, base, keep_bytes=keep_bytes)
        for _ in range(3):
            changed = {**base, **chosen(model.program, rng, count)}
            for key in rng.sample(sorted(base), len(base) // 2):
                del changed[key]
            with torch.inference_mode():
                full = model.program.run(model.feeds, changed)
            again = model.program.rerun(trace, changed)
            assert_identical(again, full)
            assert again.macs <= full.macs or keep_bytes < 2**30


@pytest.mark.parametrize("name", NAMES[:5])
def test_rerun_executes_only_what_lies_downstream(
    name: str, exported: Callable[[str], Exported]
) -> None:
    model = exported(name)
    trace = model.program.trace(model.feeds)
    contracting = [n for n in model.graph.nodes if n.op_type in ("MatMul", "Gemm", "Conv")]
    last = f"{contracting[-1].name}/in1"
    rerun = model.program.rerun(trace, {last: Grid(2**-4)})
    assert 0 < rerun.macs < trace.execution.macs / 5


def test_rerun_without_a_change_executes_nothing(exported: Callable[[str], Exported]) -> None:
    model = exported("llama-dynamo18")
    trace = model.program.trace(model.feeds)
    again = model.program.rerun(trace, {})
    assert again.macs == 0
    assert_identical(again, trace.execution)


def test_equal_quantizers_are_no_change(exported: Callable[[str], Exported]) -> None:
    model = exported("llama-dynamo18")
    key = sites(model.program)[8]
    trace = model.program.trace(model.feeds, {key: Grid(0.25)})
    assert model.program.rerun(trace, {key: Grid(0.25)}).macs == 0


def test_retrace_is_a_trace_of_the_new_assignment(exported: Callable[[str], Exported]) -> None:
    model = exported("vit-dynamo18")
    rng = random.Random(3)
    first, second = chosen(model.program, rng, 4), chosen(model.program, rng, 4)
    trace = model.program.trace(model.feeds)
    step = model.program.retrace(trace, first)
    both = model.program.rerun(step, {**first, **second})
    with torch.inference_mode():
        assert_identical(step.execution, model.program.run(model.feeds, first))
        assert_identical(both, model.program.run(model.feeds, {**first, **second}))
    assert step.execution.macs <= trace.execution.macs


@pytest.mark.parametrize("keep_bytes", [0, 20_000, 100_000])
def test_trace_stays_within_its_budget(
    keep_bytes: int, exported: Callable[[str], Exported]
) -> None:
    model = exported("llama-dynamo18")
    trace = model.program.trace(model.feeds, keep_bytes=keep_bytes)
    large = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for slot, x in trace.values.items()
        if isinstance(x, Tensor) and trace.costs[slot] > 0 and x.untyped_storage().nbytes() > 4096
    }
    assert sum(large.values()) <= keep_bytes


def test_probabilities_are_dropped_before_linear_outputs(
    exported: Callable[[str], Exported],
) -> None:
    model = exported("gpt2-dynamo18")
    slots = model.program._block.slots
    softmax = [slots[n.outputs[0]] for n in model.graph.nodes if n.op_type == "Softmax"]
    gemms = [slots[n.outputs[0]] for n in model.graph.nodes if n.op_type in ("Gemm", "MatMul")]
    # A quantizer at the probabilities keeps the attention from running as one kernel.
    inside = {f"{n.name}/out0": Grid(2**-8) for n in model.graph.nodes if n.op_type == "Softmax"}
    whole = model.program.trace(model.feeds, inside)
    results = [whole.values[slot] for slot in gemms]
    budget = sum(value.nbytes for value in results if isinstance(value, torch.Tensor))
    half = model.program.trace(model.feeds, inside, keep_bytes=budget)
    assert not half.values.keys() & set(softmax)
    assert half.values.keys() & set(gemms)
