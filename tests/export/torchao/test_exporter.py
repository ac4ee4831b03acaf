"""Configurations for torchao: what it reads, what it makes of them, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Recipe, deliver, exporter
from dse.export.torchao.floor import _raised
from dse.model import Model, open_model
from dse.numerics import QuantizerState
from tests.export import folders

pytest.importorskip("torchao")

WEIGHTS = {
    "q_proj/in1": "int8_channel", "k_proj/in1": "int4_g32", "v_proj/in1": "uint4_g32",
    "o_proj/in1": "nvfp4", "gate_proj/in1": "e4m3_channel", "up_proj/in1": "int3_channel",
    "down_proj/in1": "e4m3_tensor", "lm_head/in1": "int8",
}  # fmt: skip
DYNAMIC = {
    "q_proj/in1": "int8_channel", "q_proj/in0": "int8_token",
    "o_proj/in1": "int4_g32", "o_proj/in0": "uint8_token",
    "gate_proj/in1": "mxfp8", "gate_proj/in0": "mxfp8",
    "down_proj/in1": "mxfp4", "down_proj/in0": "mxfp4",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(str(folders.folder("llama", tmp_path_factory.mktemp("folder") / "m")))


@pytest.mark.parametrize(("formats", "count"), [(WEIGHTS, 15), (DYNAMIC, 8)])
def test_torchao_comes_near_the_emulators_numbers(
    formats: dict[str, str], count: int, model: Model, tmp_path: Path
) -> None:
    given = folders.recipe(model, formats)
    weights, outputs = deliver(given, "torchao", tmp_path / "q.json", verify=True)
    assert weights.compared == f"{count} weights"
    assert weights.difference is not None
    assert "scales are recomputed" in weights.note
    assert outputs.compared == "outputs"


def test_power_of_two_scales_are_the_emulators(model: Model, tmp_path: Path) -> None:
    formats = {"proj/in1": "e2m1@g32/e8m0-even", "proj/in0": "e2m1@g32/e8m0-even"}
    weights, _ = deliver(
        folders.recipe(model, formats), "torchao", tmp_path / "q.json", verify=True
    )
    assert weights.difference == 0.0


def _with_outlier(model: Model, formats: dict[str, str], factor: float) -> Recipe:
    """A recipe whose first down projection has one weight of `factor` times the largest."""
    given = folders.recipe(model, formats)
    weight = given.constant("model.layers.0.mlp.down_proj/in1")
    assert weight is not None
    weight[0, 0] = factor * weight.abs().max()
    return given


def test_block_scales_below_torchaos_floor_are_refused(tmp_path: Path) -> None:
    from torchao.prototype.mx_formats.nvfp4_tensor import (  # noqa: PLC0415 (an extra)
        NVFP4Tensor,
        per_tensor_amax_to_scale,
    )

    folder = folders.folder("llama", tmp_path / "in")
    mild = _with_outlier(open_model(str(folder)), {"down_proj/in1": "nvfp4"}, 1e3)
    deliver(mild, "torchao", tmp_path / "mild.json")
    given = _with_outlier(open_model(str(folder)), {"down_proj/in1": "nvfp4"}, 1e5)
    key = "model.layers.0.mlp.down_proj/in1"
    with pytest.raises(ExportError, match=r"blocks have scales below 2\^-6") as caught:
        deliver(given, "torchao", tmp_path / "q.json")
    assert "model.layers.1" not in str(caught.value)
    # What torchao makes of it, and the emulator does not.
    constant = given.constant(key)
    assert constant is not None
    level = per_tensor_amax_to_scale(constant.abs().max())
    matrix = constant.T.contiguous().float()
    theirs = NVFP4Tensor.to_nvfp4(matrix, per_tensor_scale=level).dequantize(torch.float32)
    ours = given.bound[key](constant.float()).T
    assert (theirs == 0).float().mean() > 0.3
    assert (ours == 0).float().mean() < 0.15


def test_activations_below_torchaos_floor_are_counted(model: Model, tmp_path: Path) -> None:
    formats = {"o_proj/in1": "nvfp4", "o_proj/in0": "nvfp4"}
    given = folders.recipe(model, formats)
    checks = deliver(given, "torchao", tmp_path / "q.json", verify=True)
    assert checks[-1].compared == "block scales of 2 activations"
    assert checks[-1].note.startswith("no block of the samples")
    steep = torch.full((1, 4, 64), 1e-6)
    steep[0, 0, 0] = 1.0
    assert _raised(steep) == (15, 16)


def test_what_a_cpu_has_no_kernel_for_is_told(model: Model, tmp_path: Path) -> None:
    formats = {
        "o_proj/in1": "e4m3_channel", "o_proj/in0": "e4m3_token", "down_proj/in1": "int8_channel",
    }  # fmt: skip
    given = folders.recipe(model, formats)
    weights, outputs = deliver(given, "torchao", tmp_path / "q.json", verify=True)
    assert weights.compared == "2 weights"
    assert "2 more need a GPU (Float8 dynamic quantization requires" in weights.note
    assert outputs.note == "not run: they need a GPU"


def test_modules_are_named_in_full(model: Model, tmp_path: Path) -> None:
    deliver(folders.recipe(model, {"o_proj/in1": "int4_g32"}), "torchao", tmp_path / "q.json")
    document = json.loads((tmp_path / "q.json").read_text())
    assert document["_type"] == "FqnToConfig"
    assert list(document["_data"]["fqn_to_config"]) == [
        f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)
    ]


def test_another_configuration_does_not_pass(model: Model, tmp_path: Path) -> None:
    given = folders.recipe(model, {"o_proj/in1": "int8_channel"})
    other = folders.recipe(model, {"o_proj/in1": "int3_channel"})
    deliver(other, "torchao", tmp_path / "q.json")
    with pytest.raises(ExportError, match="more than recomputed scales explain"):
        exporter("torchao").verify(given, tmp_path / "q.json")


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({"o_proj/in1": "int4_g32:gptq"}, "holds no gptq codes"),
        ({"o_proj/in1": "int8_channel:mse"}, "the largest magnitude of what it sees, not mse"),
        ({"o_proj/in1": "int8_channel:hadamard"}, "computes around the codes"),
        ({"o_proj/in1": "e4m3_tensor", "o_proj/in0": "e4m3_tensor:static"}, "calibrated scales"),
        ({"o_proj/in1": "int4_g32", "o_proj/in0": "int8_token"}, "of int4_g32 with int8_token"),
        ({"o_proj/in1": "nf4_g64"}, "no configuration of nf4_g64 with 16-bit activations"),
        ({"scores/in1": "e4m3_tensor:static", "mix/in1": "e4m3_tensor:static"}, "is none"),
    ],
)
def test_what_torchao_cannot_say_is_refused_and_leaves_nothing(
    formats: dict[str, str], message: str, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        deliver(folders.recipe(model, formats), "torchao", tmp_path / "q.json")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tuned_weights_are_refused_since_it_would_round_others(
    model: Model, tmp_path: Path
) -> None:
    given = folders.recipe(model, {"o_proj/in1": "int8_channel"})
    learned = {}
    for key, emulator in given.bound.items():
        weight = given.constant(key)
        if weight is not None and isinstance(emulator, Emulator):
            state = QuantizerState(values=emulator(weight.float()))
            learned[key] = replace(emulator, state=state)
    tuned = replace(given, bound={**given.bound, **learned})
    with pytest.raises(ExportError, match="a configuration holds no tuned ones"):
        deliver(tuned, "torchao", tmp_path / "q.json")


def test_a_corrected_bias_is_refused(tmp_path: Path) -> None:
    given = folders.of("qwen2", tmp_path / "m", {"q_proj/in1": "int4_channel:bias_corrected"})
    with pytest.raises(ExportError, match="this layer's bias was corrected"):
        deliver(given, "torchao", tmp_path / "q.json")
