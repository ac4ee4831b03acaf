"""Compressed keys and values (MLA) in the cheaper form, by the configuration's arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis
from dse.imports.folder import open_folder
from dse.predict import Usage, predict
from hwmodels.work.sharding import shard
from hwmodels.work.work import Work
from tests.imports import families
from tests.imports.store import exported

LAYERS = 2
ROLES = ("q", "attention", "o")
"""Regions of a layer that hold the two halves of `kv_b_proj` and what is between them."""


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("latent") / "deepseek_v2"
    saved = families.save("deepseek_v2", where, num_hidden_layers=LAYERS)
    return exported(saved, store, served=True)  # that of test_serving


@pytest.fixture(scope="module")
def analysis(folder: Path) -> Analysis:
    return Analysis(open_folder(folder, served=True))


def called(analysis: Analysis, batch: int, sequence: int, past: int) -> Work:
    return lower(analysis, {"batch": batch, "sequence": sequence, "past": past})


def macs_of_a_layer(work: Work) -> int:
    found = [region for region in work.regions if region.role in ROLES]
    assert len(found) == LAYERS * len(ROLES)
    return sum(region.macs for region in found) // LAYERS


def forms(folder: Path, batch: int, sequence: int, past: int) -> tuple[int, int]:
    """Multiply-accumulates of a layer: expanded, and absorbed as a kernel of one width counts."""
    c = json.loads((folder / "config.json").read_text())
    heads, rank = c["num_attention_heads"], c["kv_lora_rank"]
    plain, rotated, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    seen = past + sequence
    pairs = batch * heads * sequence * seen
    expanded = batch * seen * rank * heads * (plain + value)
    expanded += pairs * (plain + rotated + value)
    absorbed = batch * sequence * heads * rank * (plain + value)
    absorbed += 2 * pairs * (rank + rotated)
    return expanded, absorbed


def test_a_prompt_is_priced_with_keys_and_values_expanded(
    folder: Path, analysis: Analysis
) -> None:
    work = called(analysis, 2, 32, 0)
    expanded, absorbed = forms(folder, 2, 32, 0)
    assert macs_of_a_layer(work) == expanded < absorbed
    (note,) = work.notes
    assert "(MLA) are expanded in a call of 32 positions, as runtimes do in prefill" in note
    assert f"{LAYERS * expanded / 1e9:.3g} instead of" in note


def test_a_step_is_priced_on_the_compressed_cache(folder: Path, analysis: Analysis) -> None:
    work = called(analysis, 2, 1, 31)
    expanded, absorbed = forms(folder, 2, 1, 31)
    assert macs_of_a_layer(work) == absorbed < expanded
    assert work.notes == ()


def test_a_few_positions_after_many_take_the_cheaper_form(
    folder: Path, analysis: Analysis
) -> None:
    chosen = []
    for sequence in (1, 4, 16, 64, 256):
        expanded, absorbed = forms(folder, 1, sequence, 64)
        # The choice counts keys and values by their own widths.
        work = called(analysis, 1, sequence, 64)
        chosen.append(bool(work.notes))
        assert macs_of_a_layer(work) == (expanded if work.notes else absorbed)
    assert chosen == sorted(chosen)
    assert set(chosen) == {False, True}


def test_both_halves_of_the_expanding_matrix_are_stored(folder: Path) -> None:
    network = families.reference(folder)
    stored = sum(parameter.numel() for parameter in network.parameters())
    graph = open_folder(folder, served=True)
    for dims in ({"sequence": 32, "past": 0}, {"sequence": 1, "past": 31}):
        (found,) = predict(graph, ["b200-sxm:vllm"], (), usage=Usage(dims={"batch": 2, **dims}))
        # All parameters in 16 bits, and the sines and cosines of 4 angles a position.
        assert found.cost.weight_bytes == 2 * stored + 2 * 2 * 4 * dims["sequence"]


def test_a_longer_prompt_is_cheaper_than_on_the_compressed_cache(analysis: Analysis) -> None:
    """The region of attention reads and writes heads of the expanded widths."""
    work = called(analysis, 1, 64, 0)
    (op, *_) = (op for region in work.regions for op in region.ops if op.kind == "attention")
    assert {name: op.sizes[name] for name in ("H", "HK", "S", "L", "D")} == {
        "H": 4, "HK": 4, "S": 64, "L": 64, "D": (16 + 8 + 24) // 2,
    }  # fmt: skip
    shapes = {operand.name: operand.shape for operand in op.operands}
    assert shapes["q"] == (1, 4, 64, 24)
    assert shapes["other"] == (1, 4, 64, 16 + 24)
    assert shapes["output"] == (1, 4, 64, 24)
    assert shapes["k"] == (1, 1, 64, 40)  # the cache, stored as before


@pytest.mark.parametrize("dims", [(1, 32, 0), (1, 1, 31)])
def test_two_gpus_share_the_heads(analysis: Analysis, dims: tuple[int, int, int]) -> None:
    whole = called(analysis, *dims)
    assert shard(whole, 2).macs < whole.macs
