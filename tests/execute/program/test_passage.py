"""Runs that start from what earlier assignments have left."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from dse.execute.operators.step import Quantize
from dse.execute.program.passage import Kept
from dse.execute.program.recent import RecentTensors
from dse.execute.program.trace import Trace
from tests.execute.conftest import Exported
from tests.execute.program.test_rerun import NAMES, Grid, assert_identical, chosen


def kept(limit_bytes: int = 1 << 30) -> Kept:
    return Kept(tensors=RecentTensors(limit_bytes))


def products(model: Exported) -> list[str]:
    """The first operands of all products, in their order."""
    contracting = [n for n in model.graph.nodes if n.op_type in ("MatMul", "Gemm", "Conv")]
    return [f"{node.name}/in0" for node in contracting]


@pytest.mark.parametrize("limit_bytes", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_starts_from_others_is_a_full_run_bit_for_bit(
    name: str, limit_bytes: int, exported: Callable[[str], Exported]
) -> None:
    model = exported(name)
    rng = random.Random(f"{name}{limit_bytes}")
    trace, left = model.program.trace(model.feeds, keep_bytes=0), kept(limit_bytes)
    sites = chosen(model.program, rng, 12)
    for _ in range(6):
        for key in rng.sample(sorted(sites), 2):
            sites[key] = Grid(rng.choice([2**-6, 2**-4, 2**-2]))
        again = model.program.rerun(trace, sites, kept=left)
        with torch.inference_mode():
            assert_identical(again, model.program.run(model.feeds, sites))


@pytest.mark.parametrize("name", ["llama-dynamo18", "resnet18-dynamo18", "vit-dynamo18"])
def test_what_stands_alike_up_to_a_layer_is_not_run_again(
    name: str, exported: Callable[[str], Exported]
) -> None:
    model = exported(name)
    keys = products(model)
    everywhere: dict[str, Quantize] = dict.fromkeys(keys, Grid(2**-6))
    trace, left = model.program.trace(model.feeds, keep_bytes=0), kept()
    first = model.program.rerun(trace, everywhere, kept=left)
    late = model.program.rerun(trace, {**everywhere, keys[-1]: Grid(2**-4)}, kept=left)
    early = model.program.rerun(trace, {**everywhere, keys[0]: Grid(2**-4)}, kept=left)
    assert 0 < late.macs < first.macs / 2
    assert early.macs == first.macs
    outputs = {model.program._block.slots[name] for name in model.graph.outputs}
    assert outputs.isdisjoint(slot for slot, _ in left.tensors._entries)


def _macs(model: Exported, trace: Trace, left: Kept, sites: dict[str, Quantize]) -> int:
    return model.program.rerun(trace, sites, kept=left).macs


def test_nothing_is_found_where_nothing_may_be_kept(exported: Callable[[str], Exported]) -> None:
    model = exported("llama-dynamo18")
    sites: dict[str, Quantize] = dict.fromkeys(products(model), Grid(2**-6))
    trace, left = model.program.trace(model.feeds, keep_bytes=0), kept()
    whole = _macs(model, trace, left, sites)
    assert _macs(model, trace, left, sites) < whole
    small = kept(0)
    assert [_macs(model, trace, small, sites) for _ in range(2)] == [whole, whole]


def test_tensors_that_were_used_longest_ago_go_first() -> None:
    held: RecentTensors[str] = RecentTensors(8)
    for key in ("a", "b"):
        held.keep(key, torch.zeros(1))
    assert held.get("a") is not None
    held.keep("c", torch.ones(1))
    assert (held.get("b"), held.bytes) == (None, 8)
    held.keep("large", torch.zeros(3))
    assert held.get("large") is None
    assert held.get("a") is not None
