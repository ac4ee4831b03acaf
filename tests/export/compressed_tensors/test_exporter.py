"""Folders in compressed-tensors' format, read by the package itself and by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp
from compressed_tensors.quantization.utils.mxfp_utils import generate_mx_scales
from safetensors.torch import load_file, save_file

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Check, Recipe, deliver, exporter
from dse.export.compressed_tensors.activations import MX_RULES
from dse.export.hugging_face.packing import words
from dse.model import open_model
from dse.numerics import QuantizerState, quantize
from dse.numerics.scales import derived_scales, tensor_scale_of
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import quantizer
from tests.export import folders
from tests.imports import families

FIVE = {
    "q_proj/in1": "e4m3_channel", "k_proj/in1": "e4m3_channel", "v_proj/in1": "e4m3_channel",
    "o_proj/in1": "nvfp4", "layers.1.self_attn.o_proj/in1": "int8_channel",
    "gate_proj/in1": "mxfp4", "up_proj/in1": "mxfp4", "down_proj/in1": "int4_g32:gptq",
}  # fmt: skip
STATIC = {"proj/in1": "e4m3_tensor", "proj/in0": "e4m3_tensor:static"}
CASES = {
    "fp8": STATIC,
    "fp8 per token": {"proj/in1": "e4m3_channel", "proj/in0": "e4m3_token"},
    "fp8 blocks": {"proj/in1": "e4m3@b32x32/fp32", "proj/in0": "e4m3@g32/fp32"},
    "int8": {"proj/in1": "int8_channel", "proj/in0": "int8:static"},
    "int8, affine": {"proj/in1": "int8_channel", "proj/in0": "uint8:static"},
    "int8 per token": {"proj/in1": "int8_channel", "proj/in0": "int8_token"},
    "int4 and int8": {"proj/in1": "int4_g32", "proj/in0": "int8_token"},
    "odd widths": {"proj/in1": "int3_g32", "o_proj/in1": "int5_channel", "down_proj/in1": "int7"},
    "nvfp4": {"proj/in1": "nvfp4", "proj/in0": "nvfp4:static"},
    "nvfp4, learned": {"proj/in1": "nvfp4:gptq"},
    "mxfp4": {"proj/in1": "mxfp4", "proj/in0": "e2m1@g32/e8m0-even"},
    "mxfp6": {"proj/in1": "mxfp6"},
    "mxfp8": {"proj/in1": "mxfp8"},
    "a head that was tied": {"lm_head/in1": "int8_channel"},
    "casts": {"proj/in1": "bf16", "proj/in0": "bf16", "scores/in1": "bf16"},
    "some left alone": {"down_proj/in1": "int4_g128", "down_proj/in0": "bf16"},
}  # fmt: skip


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose attention is two groups of 128 wide."""
    where = tmp_path_factory.mktemp("wide") / "in"
    return folders.folder("qwen3", where, hidden_size=128, head_dim=64)


def written(recipe: Recipe, out: Path) -> tuple[Check, ...]:
    return deliver(recipe, "compressed-tensors", out, verify=True)


def last_place(recipe: Recipe) -> float:
    """One unit in the last place of a bfloat16 of the size of the largest logit."""
    assert recipe.samples is not None
    outputs = recipe.program.run(recipe.samples, recipe.bound).outputs[recipe.graph.outputs[0]]
    assert isinstance(outputs, torch.Tensor)
    return float(2.0 ** (np.floor(np.log2(float(outputs.abs().max()))) - 7))


def refused(recipe: Recipe, out: Path) -> str:
    with pytest.raises(ExportError) as caught:
        deliver(recipe, "compressed-tensors", out)
    assert not out.exists()
    return str(caught.value)


def test_a_table_that_a_look_up_shares_is_refused(tmp_path: Path) -> None:
    model = open_model(str(folders.folder("llama", tmp_path / "in")))
    message = refused(folders.shared(model, "int8_channel"), tmp_path / "out")
    (tie,) = model.analysis.ties
    assert tie.look_up.key in message
    assert "keep the tables of look-ups in 16 bits" in message


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_five_formats_in_one_folder_are_read_with_the_emulators_numbers(
    family: str, tmp_path: Path
) -> None:
    recipe = folders.of(family, tmp_path / "in", FIVE)
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.compared == "14 weights"
    assert outputs.difference is not None
    assert outputs.difference <= last_place(recipe)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    formats = {group["format"] for group in config["config_groups"].values()}
    assert formats == {
        "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "pack-quantized",
    }  # fmt: skip
    assert config["ignore"] == ["lm_head"]


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_emulators(case: str, tmp_path: Path) -> None:
    recipe = folders.of("qwen3", tmp_path / "in", CASES[case])
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.difference is not None
    assert outputs.difference is not None
    assert ("rounds them up (e2m1@g32/e8m0-rceil)" in outputs.note) is (case == "mxfp4")
    if "of its own" in outputs.note:
        assert case in ("int8 per token", "int4 and int8")


PRESETS = {
    "w4a16": "W4A16", "w8a8_int8": "INT8", "w8a8_fp8": "FP8", "w8a8_fp8_dynamic": "FP8_DYNAMIC",
    "w4a8_fp8": "W4AFP8", "w4a4_nvfp4": "NVFP4", "w4a4_mxfp4": "MXFP4", "w8a8_mxfp8": "MXFP8",
}  # fmt: skip


@pytest.mark.parametrize("scheme", PRESETS)
def test_a_scheme_of_the_catalogue_is_the_preset_of_its_source(
    scheme: str, wide: Path, tmp_path: Path
) -> None:
    model = open_model(str(wide))
    recipe = folders.recipe_of_assignment(
        model, uniform_assignment(model.analysis.regions, scheme)
    )
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.difference is not None
    assert outputs.difference is not None
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    found = next(
        QuantizationScheme.model_validate(group)
        for group in config["config_groups"].values()
        if "model.layers.0.self_attn.o_proj" in group["targets"]
    )
    wanted = preset_name_to_scheme(PRESETS[scheme], ["Linear"])
    assert _said(found.weights) == _said(wanted.weights)
    assert _said(found.input_activations) == _said(wanted.input_activations)


def _said(arguments: QuantizationArgs | None) -> object:
    """What a runtime computes by; observers are who calibrated, types of zero points unused."""
    return arguments and arguments.model_dump(exclude={"observer", "observer_kwargs", "zp_dtype"})


@pytest.mark.parametrize(("name", "rule"), MX_RULES.items())
def test_scales_of_mx_activations_are_those_of_the_package(name: str, rule: str) -> None:
    format = quantizer(f"{name}@g32/e8m0-{rule}").format
    largest = torch.rand(4096, generator=torch.Generator().manual_seed(0)).mul(40).sub(20).exp2()
    edges = torch.tensor([1.0, 1.5, 1.7499999, 1.7500001, 1.875, 1.9375, 1.9999999])
    largest = torch.cat([largest, edges, edges * 2.0**-90, edges * 2.0**90])
    blocks = torch.nn.functional.pad(largest[:, None], (0, 31))
    scales = derived_scales(blocks, quantizer(f"{name}@g32/e8m0-{rule}")).scales
    exponents = generate_mx_scales(largest, format.element.bits) - 127
    assert torch.equal(scales.flatten(), exponents.exp2())


def test_nvfp4_activations_with_outliers_are_those_of_the_package() -> None:
    """Block scales far below the largest one are subnormal numbers of E4M3, and are kept."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(-6, 1, (64, 1), generator=generator).float().exp2()
    x = torch.randn(64, 256, generator=generator) * sizes
    x[3, 5] = 3e5
    chosen = quantizer("nvfp4:static")
    level = tensor_scale_of(x.abs().max(), chosen.format)
    arguments = preset_name_to_scheme("NVFP4", ["Linear"]).input_activations
    divisor = torch.tensor([1 / level])
    scales, zeros = compute_dynamic_scales_and_zp(
        x, arguments, torch.nn.Module(), global_scale=divisor
    )
    theirs = fake_quantize(x, scales, zeros, arguments, global_scale=divisor)
    ours = quantize(x, chosen, axes=(1,), state=QuantizerState(tensor_scale=level))
    assert torch.equal(ours, theirs)


def test_a_corrected_mean_goes_into_the_bias(tmp_path: Path) -> None:
    recipe = folders.of("qwen2", tmp_path / "in", dict.fromkeys(
        ("q_proj/in1", "k_proj/in1", "v_proj/in1"), "int4_g32:bias_corrected"))  # fmt: skip
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.difference == 0
    assert outputs.difference is not None
    assert outputs.difference <= last_place(recipe)
    name = "model.layers.0.self_attn.q_proj.bias"
    before = load_file(tmp_path / "in" / "model.safetensors")[name]
    assert not torch.equal(load_file(tmp_path / "out" / "model.safetensors")[name], before.float())


def test_a_layer_without_a_bias_takes_no_corrected_mean(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", {"down_proj/in1": "int4_g32:bias_corrected"})
    message = refused(recipe, tmp_path / "out")
    assert "has no bias that could take its corrected mean" in message
    assert "model.layers.0.mlp.down_proj/in1" in message


def test_the_file_has_the_bytes_that_formats_count(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", FIVE)
    written(recipe, tmp_path / "out")
    counted = 0
    for key, emulator in recipe.bound.items():
        weight = recipe.constant(key)
        assert weight is not None
        assert isinstance(emulator, Emulator)
        counted += emulator.quantizer.format.storage_bytes(weight.shape, emulator.axes)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    modules = [key.removesuffix("/in1") for key in recipe.bound]
    found = sum(
        tensor.nbytes
        for name, tensor in tensors.items()
        if any(name.startswith(f"{module}.") for module in modules)
        and not name.endswith("weight_shape")
    )
    assert found == counted


def test_what_is_not_quantized_stays_as_it_was(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", {"down_proj/in1": "mxfp4"})
    written(recipe, tmp_path / "out")
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    kept = {name for name in before if "down_proj" not in name}
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert (tmp_path / "out" / "tokenizer_config.json").read_bytes() == (
        tmp_path / "in" / "tokenizer_config.json"
    ).read_bytes()


def test_shards_stay_shards(tmp_path: Path) -> None:
    folder = folders.folder("llama", tmp_path / "in")
    families.reference(folder).to(torch.bfloat16).save_pretrained(folder, max_shard_size="80kB")
    (folder / "model.safetensors").unlink()
    recipe = folders.recipe(open_model(str(folder)), {"proj/in1": "mxfp4"})
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.compared == "14 weights"
    assert outputs.compared == "outputs"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1


def test_siblings_that_differ_are_refused_with_their_names(tmp_path: Path) -> None:
    formats = {"q_proj/in1": "mxfp4", "k_proj/in1": "e4m3_channel", "v_proj/in1": "mxfp4"}
    message = refused(folders.of("llama", tmp_path / "in", formats), tmp_path / "out")
    assert "load them as one layer, and their formats differ" in message
    assert "model.layers.0.self_attn.k_proj: e4m3_channel" in message


def test_siblings_of_which_one_is_plain_are_refused(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", {"gate_proj/in1": "mxfp4"})
    assert "model.layers.0.mlp.up_proj: not quantized" in refused(recipe, tmp_path / "out")


MIXTURES = {
    "mixtral": {
        "experts.matmul/in1": "nvfp4", "experts.matmul/in0": "nvfp4:static",
        "experts.matmul_1/in1": "nvfp4", "experts.matmul_1/in0": "nvfp4:static",
    },
    "qwen3_moe": {
        "experts.matmul/in1": "e4m3_tensor", "experts.matmul/in0": "e4m3_tensor:static",
        "experts.matmul_1/in1": "e4m3_tensor", "experts.matmul_1/in0": "e4m3_tensor:static",
        "o_proj/in1": "int4_g32",
    },
}  # fmt: skip
"""Formats of experts by family: checkpoints keep one matrix each, the graph stacks of them."""


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_written_one_by_one(family: str, tmp_path: Path) -> None:
    recipe = folders.of(
        family, tmp_path / "in", MIXTURES[family], num_hidden_layers=1, moe_intermediate_size=64
    )
    weights, outputs = written(recipe, tmp_path / "out")
    assert weights.compared.split()[0] == ("12" if family == "mixtral" else "13")
    assert outputs.difference is not None
    assert outputs.difference <= last_place(recipe)
    assert "of weights alone" in outputs.note
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    targets = {name for group in config["config_groups"].values() for name in group["targets"]}
    stored = load_file(tmp_path / "in" / "model.safetensors")
    experts = {name.removesuffix(".weight") for name in stored if ".experts." in name}
    assert experts <= targets
    # The names by which vLLM asks for the scheme of a mixture.
    parent = next(iter(experts)).split(".experts.")[0]
    asked = {f"{parent}.experts.0.{name}_proj" for name in ("gate", "up", "down")}
    assert asked <= targets


def test_experts_of_one_mixture_have_one_format(tmp_path: Path) -> None:
    recipe = folders.of("mixtral", tmp_path / "in", {"experts.matmul/in1": "int4_g32"},
                        num_hidden_layers=1)  # fmt: skip
    message = refused(recipe, tmp_path / "out")
    assert "experts.0.w1: int4_g32" in message
    assert "experts.0.w2: not quantized" in message


def test_scales_per_tensor_are_per_channel_where_layers_are_loaded_as_one(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", STATIC)
    written(recipe, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["model.layers.0.self_attn.q_proj.weight_scale"].shape == (64, 1)
    assert tensors["model.layers.0.self_attn.o_proj.weight_scale"].shape == (1,)


def test_caches_are_written_with_their_scales(tmp_path: Path) -> None:
    caches = {"scores/in1": "e4m3_tensor:static", "mix/in1": "e4m3_tensor:static"}
    recipe = folders.of("llama", tmp_path / "in", {**STATIC, **caches})
    written(recipe, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    emulator = recipe.bound["model.layers.1.self_attn.mix/in1"]
    assert isinstance(emulator, Emulator)
    assert emulator.statistics is not None
    scale = float(tensors["model.layers.1.self_attn.v_scale"])
    assert scale == pytest.approx(emulator.statistics.absmax / 448)
    launch = exporter("compressed-tensors").launch(recipe, tmp_path / "out")  # type: ignore[attr-defined]
    assert launch == f"vllm serve {tmp_path / 'out'} --kv-cache-dtype fp8"


REFUSED = {
    "caches of some layers": (
        {"layers.0.self_attn.scores/in1": "e4m3_tensor:static"}, "one cache format holds",
    ),
    "integer caches": (
        {"scores/in1": "int8:static", "mix/in1": "int8:static"}, "in e4m3 with one calibrated",
    ),
    "attention": ({"scores/in0": "e4m3_tensor:static"}, r"none of them \(q\)"),
    "an activation alone": ({"o_proj/in0": "int8_token"}, "together with the weight"),
    "a posit": ({"o_proj/in1": "posit8_1@channel/fp32"}, "no type of safetensors holds"),
    "a level in flight": (
        {"o_proj/in1": "nvfp4", "o_proj/in0": "nvfp4"}, "takes a calibrated one",
    ),
    "a rule of its own": (
        {"o_proj/in1": "mxfp4", "o_proj/in0": "mxfp4"}, "for e2m1 is 'even', not 'floor'",
    ),
    "one scale in flight": (
        {"o_proj/in1": "e4m3_channel", "o_proj/in0": "e4m3_tensor"}, "per token only",
    ),
    "smoothing": (
        {"o_proj/in1": "int8_channel:smooth(0.5)", "o_proj/in0": "int8:static:smooth(0.5)"},
        "smooth computes around the codes",
    ),
    "wide integers": ({"o_proj/in1": "int12_channel"}, "at most 8 bits"),
    "two precisions": ({"o_proj/in0": "bf16", "down_proj/in0": "fp16"}, "runs in one type"),
    "short groups": ({"down_proj/in1": "int4@g96/fp16"}, "groups of 96 do not divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_place_is_refused(case: str, tmp_path: Path) -> None:
    formats, reason = REFUSED[case]
    assert reason.replace("\\", "") in refused(
        folders.of("llama", tmp_path / "in", formats), tmp_path / "out"
    )


@pytest.mark.parametrize("bits", range(2, 9))
def test_words_are_those_of_the_package(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 75)).astype(np.int16)
    back = unpack_from_int32(words(codes, bits), bits, torch.Size(codes.shape))
    np.testing.assert_array_equal(back.numpy().astype(np.int16) + (1 << bits - 1), codes)


def test_a_folder_that_was_changed_does_not_pass(tmp_path: Path) -> None:
    recipe = folders.of("llama", tmp_path / "in", {"down_proj/in1": "nvfp4"})
    written(recipe, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight_packed"][5, 7] ^= 0x10
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"down_proj with a difference"):
        exporter("compressed-tensors").verify(recipe, tmp_path / "out")
