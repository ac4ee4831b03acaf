"""Checks of a folder by compressed-tensors and transformers, against the emulator."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.compressed_tensors.plan import Plan
from dse.export.hugging_face.folder import CONFIG, read_tensors
from dse.export.hugging_face.kernels import without_kernel
from dse.export.hugging_face.layers import emulated_weight
from dse.imports.checkpoint import read_json
from dse.imports.signature import output_name
from dse.imports.trace import quiet

PACKAGES = ("compressed_tensors", "transformers")
BF16_ULP = 2.0**-7
"""One unit in the last place of a bfloat16, as the largest share of the number."""
ROUNDED = (BF16_ULP / 2) ** 2
"""Of an output that differs by the last place of a bfloat16."""
TIES = 0.05
"""Share of the quantization noise that outputs may differ by: products are summed in another
order, which puts a few activations on the other side of a tie."""
OWN_SCALES = 1.5
"""The same where the consumer derives scales of integer activations by a rule of its own
(largest magnitude over 127.5, where vLLM's kernels and the emulator take 127): both round, each
by itself."""


def checks(recipe: Recipe, plan: Plan, out: Path) -> tuple[Check, ...]:
    """Schema, weights and outputs of a written folder.

    Raises:
        ExportError: the package refuses it, or computes something else than the emulator.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        named = ", ".join(missing).replace("_", "-")
        return (Check(checker="transformers", compared="nothing", note=f"needs {named}"),)
    return (_weights(recipe, plan, out), _outputs(recipe, plan, out))


def _weights(recipe: Recipe, plan: Plan, out: Path) -> Check:
    """Every packed weight as the package unpacks it, under the schema that it reads."""
    from compressed_tensors import __version__ as version  # noqa: PLC0415 (an extra)

    checker = f"compressed-tensors {version}"
    tensors = read_tensors(out)
    worst = 0.0
    for module, scheme in _schemes(out, checker).items():
        wanted = emulated_weight(recipe, plan.layers.quantized[module])
        found = _unpacked(module, scheme, tensors)
        difference = (found - wanted).abs()
        if found.shape != wanted.shape or bool((difference > BF16_ULP * wanted.abs()).any()):
            raise ExportError(
                f"{checker} reads {module} with a difference of {float(difference.max()):.3g}, "
                "more than a bfloat16's last place"
            )
        worst = max(worst, float(difference.max()))
    return Check(
        checker=checker,
        compared=f"{len(plan.layers.quantized)} weights",
        difference=worst,
        note="it unpacks 4-bit floats to bfloat16" if worst else "",
    )


def _schemes(out: Path, checker: str) -> dict[str, Any]:
    """The package's scheme of every quantized layer."""
    from compressed_tensors.quantization import QuantizationConfig  # noqa: PLC0415 (an extra)

    given = read_json(out / CONFIG).get("quantization_config")
    if given is None:
        return {}
    try:
        config = QuantizationConfig.model_validate(given)
    except ValueError as error:
        raise ExportError(f"{checker}: the configuration is invalid: {error}") from error
    return {
        target: scheme for scheme in config.config_groups.values() for target in scheme.targets
    }


def _unpacked(module: str, scheme: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    from compressed_tensors.compressors import BaseCompressor  # noqa: PLC0415 (an extra)

    stored = {
        name.removeprefix(f"{module}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{module}.")
    }
    for name in ("weight_scale", "weight_global_scale"):
        if name in stored and stored[name].dtype in (torch.float16, torch.bfloat16):
            stored[name] = stored[name].float()  # products in 16 bits would round
    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    weight: Tensor = compressor.decompress(stored, scheme)["weight"]
    return weight.float()


def _outputs(recipe: Recipe, plan: Plan, out: Path) -> Check:
    """The network's outputs on samples, in float32 as the emulator computes."""
    import transformers  # noqa: PLC0415 (an extra)

    checker = f"transformers {transformers.__version__}"
    if recipe.samples is None:
        return Check(checker=checker, compared="nothing", note="there are no samples to run")
    network = _loaded(plan, out)
    if isinstance(network, str):
        return Check(checker=checker, compared="nothing", note=network)
    caches = any(hasattr(module, "k_scale") for module in network.modules())
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    feeds = {name: value for name, value in typed.items() if isinstance(value, Tensor)}
    name = next(iter(recipe.graph.outputs))
    reference = _reference(recipe, plan, caches=caches)
    with torch.inference_mode(), quiet():
        plain = recipe.program.run(feeds).outputs[name]
        wanted = recipe.program.run(feeds, reference).outputs[name]
        found = _output(network, feeds)
        _restore(recipe, plan, network)
        restored = _output(network, feeds)
    assert isinstance(plain, Tensor)
    assert isinstance(wanted, Tensor)
    share = OWN_SCALES if _derives_integers(plan) else TIES
    allowed = share * _mean_square(plain - wanted) + ROUNDED * _mean_square(wanted)
    difference = float((found - wanted).abs().max())
    if _mean_square(restored - wanted) > allowed:
        raise ExportError(
            f"{checker} computes outputs that differ from the emulator's by {difference:.3g}, "
            "more than rounding explains"
        )
    return Check(
        checker=checker, compared="outputs", difference=difference, note=_note(plan, caches)
    )


def _loaded(plan: Plan, out: Path) -> Any:
    """The network as transformers loads it, its weights unpacked, in float32; or why not.

    Its own 16 bits would hide what is compared, and the emulator computes in float32.
    """
    import transformers  # noqa: PLC0415 (an extra)

    architecture = read_json(out / CONFIG)["architectures"][0]
    try:
        # Progress bars are not the user's.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            network = getattr(transformers, architecture).from_pretrained(
                out, dtype=torch.float32, attn_implementation="eager"
            )
            quantizer = getattr(network, "hf_quantizer", None)
            if quantizer is not None:
                quantizer.compressor.decompress_model(network)
    except Exception as error:  # whatever the packages raise about a file
        if any("weight_zero_point" in one.tensors for one in plan.packed.values()):
            return "not run: this version of transformers loads no packed zero points"
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"transformers cannot load what was written: {reason}") from error
    return torch.nn.Module.float(network).eval()  # its own refuses


def _output(network: Any, feeds: Mapping[str, Tensor]) -> Tensor:
    result = network(**feeds, return_dict=True)
    value: Tensor = result[output_name(result)]
    return value


def _restore(recipe: Recipe, plan: Plan, network: Any) -> None:
    """Gives packed layers their weights in float32.

    Unpacked to bfloat16 (`_weights` has seen by how much that moves them), they put many a 4-bit
    activation behind them on the next step: a tenth of its noise, which could hide a mistake.
    """
    for module, layer in plan.layers.quantized.items():
        network.get_submodule(module).weight.data.copy_(emulated_weight(recipe, layer))


def _reference(recipe: Recipe, plan: Plan, *, caches: bool) -> dict[str, Quantize]:
    """Quantizers of the network that was loaded, of what stands at sites.

    Casts of activations are left out, since it runs in float32, and caches where it keeps plain
    ones.
    """
    left_out = {
        key
        for key, quantize in recipe.bound.items()
        if isinstance(quantize, Emulator)
        and quantize.quantizer.format.scale is None
        and key not in plan.layers.linears
    }
    if not caches:
        left_out |= {one.key for parts in plan.layers.caches.values() for one in parts.values()}
    return {key: quantize for key, quantize in recipe.bound.items() if key not in left_out}


def _derives_integers(plan: Plan) -> bool:
    return any(
        one.arguments["type"] == "int" and one.arguments["dynamic"] for one in plan.met.values()
    )


def _note(plan: Plan, caches: bool) -> str:
    notes = ["both in float32"]
    if _derives_integers(plan):
        notes.append("its scales of dynamic integers are of its own, vLLM's are the emulator's")
    if plan.cache_scales and not caches:
        notes.append("it keeps caches in full precision, vLLM quantizes them")
    if missing := without_kernel(plan.layers, "vllm"):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        notes.append(f"vLLM has no kernel for {missing[0]}{more}")
    return "; ".join(notes)


def _mean_square(x: Tensor) -> float:
    return float(x.double().square().mean())
