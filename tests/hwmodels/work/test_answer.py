"""Logits of the last position alone: the head has a row a request, all else is as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from hwmodels.work.answer import answering
from hwmodels.work.sharding import shard
from hwmodels.work.work import Op, Operand, RegionWork, Work

TOKENS, WIDTH, VOCABULARY = 512, 4096, 128_256


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(open_model("zoo:llama-3-8b").graph)


@pytest.mark.parametrize("requests", [1, 3])
def test_the_head_has_a_row_a_request(analysis: Analysis, requests: int) -> None:
    whole = lower(analysis, {"batch": requests, "sequence": TOKENS, "past": 0})
    found = answering(whole, requests=requests, tokens=TOKENS)
    left = requests * (TOKENS - 1) * WIDTH * VOCABULARY
    assert whole.macs - found.macs == left
    assert found.regions[:-1] == whole.regions[:-1]
    (logits,) = found.regions[-1].writes
    assert logits.shape == (requests, 1, VOCABULARY)
    read = [one.shape for one in found.regions[-1].reads if not one.is_weight]
    assert read == [(requests, 1, WIDTH)]


def test_a_decoding_step_is_as_it_was(analysis: Analysis) -> None:
    step = lower(analysis, {"batch": 4, "sequence": 1, "past": TOKENS})
    assert answering(step, requests=4, tokens=1) is step


def test_gpus_share_the_one_row(analysis: Analysis) -> None:
    whole = lower(analysis, {"batch": 1, "sequence": TOKENS, "past": 0})
    parts = shard(answering(whole, requests=1, tokens=TOKENS), 2)
    gathered = [one for one in parts.regions if one.kind == "collective"][-1]
    assert gathered.writes[0].elements == VOCABULARY


def test_what_follows_the_head_has_its_rows() -> None:
    """Logits of Gemma 2 are capped: scaled, bounded by tanh."""
    rows = 2 * 8
    hidden = Operand(name="input", value="h", shape=(2, 8, 4))
    weight = Operand(name="weight", value="w", shape=(4, 6), is_weight=True)
    logits = Operand(name="output", value="l", shape=(2, 8, 6))
    capped = replace(logits, value="c")
    head = Op(name="head", kind="gemm", sizes={"M": rows, "K": 4, "N": 6},
              operands=(hidden, weight, logits))  # fmt: skip
    read = replace(logits, name="input")
    cap = Op(name="cap", kind="elementwise", sizes={"rows": rows, "cols": 6},
             operands=(read, capped), detail="tanh")  # fmt: skip
    work = Work(
        name="g",
        regions=(
            RegionWork(name="head", kind="gemm", role="head", ops=(head,), reads=(hidden, weight),
                       writes=(logits,)),
            RegionWork(name="cap", kind="elementwise", role="elementwise", ops=(cap,),
                       reads=(read,), writes=(capped,)),
        ),
        outputs=("c",),
    )  # fmt: skip
    first, second = answering(work, requests=2, tokens=8).regions
    assert (first.ops[0].sizes["M"], second.ops[0].sizes["rows"]) == (2, 2)
    assert second.writes[0].shape == (2, 1, 6)
    assert first.reads[1] == weight
