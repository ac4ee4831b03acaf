"""Drafts of folders: decoders are priced as they are served, within their context."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.explore.problem.design import open_design
from dse.explore.run import run_search
from dse.explore.workload import workload
from dse.graph.ir.graph import Graph
from dse.imports.facts import KEY
from dse.model import Model, open_model
from dse.queue import load_bounds
from dse.space.check import describe
from dse.space.init import Draft, space_text
from dse.space.load import load_space, parse_space
from dse.space.schema import Scenario
from tests.imports import families

CONTEXT = families.SIZES["max_position_embeddings"]


@pytest.fixture(scope="module")
def opened(llama: Path) -> Model:
    return open_model(str(llama))


def drafted(model: Model, **dims: int) -> Scenario:
    text = space_text(model, "m", Draft(data="x.npz", dims=dims))
    return parse_space(text, origin="draft").scenario


def test_a_decoder_is_drafted_with_prefill_and_decode_within_its_context(opened: Model) -> None:
    phases = drafted(opened).phases
    assert list(phases) == ["prefill", "decode"]
    prompt, answer = CONTEXT // 2, CONTEXT // 2  # 512 and 128 do not fit
    assert phases["prefill"].dims == {"batch": 1, "sequence": prompt, "past": 0}
    assert phases["decode"].dims == {"batch": 1, "sequence": 1, "past": prompt + answer // 2}
    assert (phases["prefill"].share, phases["decode"].share) == (1, answer)


def test_the_load_of_a_draft_counts_once_its_mark_is_taken_away(opened: Model) -> None:
    text = space_text(opened, "m", Draft(data="x.npz"))
    assert parse_space(text, origin="draft").scenario.load is None
    load = parse_space(text.replace("  # load:", "  load:"), origin="draft").scenario.load
    assert load is not None
    assert load_bounds(load.bounds, origin="draft")


def with_facts(opened: Model, **facts: object) -> Model:
    """The model as if its configuration said something else."""

    def changed(graph: Graph) -> Graph:
        text = json.dumps({**json.loads(graph.metadata[KEY]), **facts})
        return replace(graph, metadata={**graph.metadata, KEY: text})

    served = opened.priced(["past"]).graph
    return Model(name="m", graph=changed(opened.graph), served=lambda: changed(served))


@pytest.mark.parametrize(("context", "prompt", "answer"), [(4096, 512, 128), (600, 300, 128)])
def test_a_longer_context_holds_the_usual_request(
    opened: Model, context: int, prompt: int, answer: int
) -> None:
    phases = drafted(with_facts(opened, context=context)).phases
    assert phases["prefill"].dims["sequence"] == prompt
    decode = phases["decode"]
    assert (decode.share, decode.dims["past"]) == (answer, prompt + answer // 2)


def test_sizes_of_the_command_line_are_those_of_the_request(opened: Model) -> None:
    phases = drafted(opened, batch=8, sequence=100).phases
    assert phases["prefill"].dims == {"batch": 1, "sequence": 100, "past": 0}
    assert phases["decode"].dims == {"batch": 8, "sequence": 1, "past": 100 + 28 // 2}
    # A prompt a request, and a call for every token of all answers.
    assert (phases["prefill"].share, phases["decode"].share) == (8, 28)
    served = opened.priced(["past"])
    asked = drafted(served, batch=2, sequence=1, past=9).phases
    assert {name: phase.dims for name, phase in asked.items()} == {
        "call": {"batch": 2, "sequence": 1, "past": 9}
    }


def test_what_predicts_no_token_is_one_call_within_its_context(opened: Model) -> None:
    phases = drafted(with_facts(opened, causal=False)).phases
    assert list(phases) == ["call"]
    assert phases["call"].dims == {"batch": 1, "sequence": CONTEXT}


def test_a_draft_is_checked_and_searched_with_both_prices(
    llama: Path, opened: Model, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.random.default_rng(0).integers(3, 120, (12, 16)))
    text = space_text(opened, str(llama), Draft(data="x.npz", trials=3))
    text = re.sub(r"(calibration|search|report): \d+", r"\1: 4", text)
    (tmp_path / "space.yaml").write_text(text)
    assert describe(tmp_path / "space.yaml").problem.size > 1
    space = load_space(tmp_path / "space.yaml")
    design = open_design(space, origin="space.yaml", folder=tmp_path)
    calls = workload(design, design.costs.targets[0].label).calls
    assert (calls["prefill"].tokens, calls["decode"].tokens) == (CONTEXT // 2, 1)
    result = run_search(tmp_path / "space.yaml", out=tmp_path / "run")
    costs = result.front[0].costs
    whole = costs["prefill.latency_s"] + CONTEXT // 2 * costs["decode.latency_s"]
    assert costs["latency_s"] == pytest.approx(whole)
    assert costs["ttft_s"] == pytest.approx(costs["prefill.latency_s"])
    assert costs["decode.latency_s"] < costs["prefill.latency_s"]
