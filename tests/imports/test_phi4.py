"""Phi-4-mini: rotation of a part of each head, with factors that depend on the length."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from dse.execute.program.program import Program
from dse.imports.folder import open_folder
from dse.imports.network import read_config
from tests.imports import families
from tests.imports.store import exported

SHORT = 64
"""Positions up to which the short factors hold."""


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = families.save("phi4_mini", tmp_path_factory.mktemp("phi4") / "phi4_mini")
    return exported(folder, store)  # that of test_families


@pytest.fixture(scope="module")
def served(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("phi4-served") / "phi4_mini"
    saved = families.save("phi4_mini", where, num_hidden_layers=2)
    return exported(saved, store, served=True)  # that of test_serving


def tokens(count: int) -> torch.Tensor:
    return torch.randint(3, 120, (2, count), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("count", [SHORT, SHORT + 1, 100])
def test_factors_of_the_length_are_taken(folder: Path, count: int) -> None:
    network = families.reference(folder)
    with torch.no_grad():
        expected = network(tokens(count)).logits
    got = Program(open_folder(folder)).run({"input_ids": tokens(count)}).outputs["logits"]
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    # The short factors would give something else there: the choice is no accident.
    rotary = network.model.rotary_emb
    vars(rotary)["long_inv_freq"] = rotary.original_inv_freq.clone()
    with torch.no_grad():
        short = network(tokens(count)).logits
    apart = float((short - expected).abs().max()) / float(expected.abs().max())
    assert (apart > 1e-2) == (count > SHORT)


def test_a_step_beyond_the_short_length_computes_what_transformers_computes(served: Path) -> None:
    text, prompt = tokens(70), SHORT - 4
    network = families.reference(served)
    known = inspect.signature(network.forward).parameters
    cache = {"cache" if "cache" in known else "past_key_values": DynamicCache()}
    with torch.no_grad():
        network(text[:, :prompt], **cache)
        expected = network(text[:, prompt:], **cache).logits
    graph = open_folder(served, served=True)
    feeds: dict[str, Any] = {"input_ids": text[:, :prompt]}
    width = families.SIZES["hidden_size"] // families.SIZES["num_attention_heads"]
    feeds |= {name: torch.zeros(2, 2, 0, width) for name in graph.inputs[1:]}
    first = Program(graph).run(feeds).outputs
    kept = {name: first[name.replace("past_key_values", "present")] for name in graph.inputs[1:]}
    got = Program(graph).run({"input_ids": text[:, prompt:], **kept}).outputs["logits"]
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_published_writing_means_the_same(folder: Path, tmp_path: Path) -> None:
    """Phi-4-mini's own config.json has `rope_scaling`, as older transformers wrote it."""
    content = json.loads((folder / "config.json").read_text())
    rope = content.pop("rope_parameters")
    factors = {key: rope[key] for key in ("short_factor", "long_factor")}
    content |= {
        "rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", **factors},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    found, asked = (read_config(one).rope_parameters for one in (tmp_path, folder))
    assert {key: found[key] for key in found if key != "type"} == {
        key: asked[key] for key in found if key != "type"
    }
    assert (found["rope_type"], found["partial_rotary_factor"]) == ("longrope", 0.75)
    assert found["original_max_position_embeddings"] == SHORT
