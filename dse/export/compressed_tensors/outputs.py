"""Outputs of a written folder under transformers, against the emulator's."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dse.errors import ExportError, some
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.compressed_tensors.plan import (
    FolderPlan,
    derives_integers,
    has_experts,
    meets_mxfp4,
)
from dse.export.compressed_tensors.unpack import schemes_of, unpacked
from dse.export.hugging_face.folder import CONFIG, read_tensors, write_json
from dse.export.hugging_face.kernels import without_kernel
from dse.export.hugging_face.plan import emulated
from dse.imports.checkpoint import SINGLE, read_json
from dse.imports.signature import output_name
from dse.imports.trace import quiet

ROUNDED = 2.0**-16
"""Mean square of an output's share that is half the last place of a bfloat16."""
TIES = 0.05
"""Share of the quantization noise that outputs may differ by: products are summed in another
order, which puts a few activations on the other side of a tie."""
JITTERS = 4.0
"""Allowance for another order of sums, in mean squares by which the last bits of weights move the
emulator itself: behind thirty layers of 4-bit activations a tie that falls otherwise has moved
most of the later ones, and both networks are as far apart as their noise lets them."""
LAST_BITS = 2.0**-21
OWN_SCALES = 1.5
"""The same where the consumer derives scales of integer activations by a rule of its own
(largest magnitude over 127.5, where vLLM's kernels and the emulator take 127): both round, each
by itself."""


ROUNDED_UP = (
    "its scales of MXFP4 activations are rounded to even as the emulator's, while vLLM on "
    "Blackwell (FlashInfer) rounds them up (e2m1@g32/e8m0-rceil)"
)
"""NVIDIA's kernels convert the largest magnitude over 6 to E8M0 with `cudaRoundPosInf`.

Source: `cvt_warp_fp16_to_fp4` with `UE8M0_SF` in TensorRT-LLM's quantization kernels, from which
FlashInfer's `fp4_quantize` comes."""


def outputs(recipe: Recipe, plan: FolderPlan, out: Path) -> Check:
    """The network's outputs on samples, in float32 as the emulator computes.

    Raises:
        ExportError: transformers cannot load it, or computes something else than the emulator.
    """
    import transformers  # noqa: PLC0415 (an extra)

    checker = f"transformers {transformers.__version__}"
    if recipe.samples is None:
        return Check(checker=checker, compared="nothing", note="there are no samples to run")
    with _readable(plan, out) as folder:
        network = _loaded(plan, folder)
    if isinstance(network, str):
        return Check(checker=checker, compared="nothing", note=network)
    feeds = _feeds(recipe)
    caches = any(hasattr(module, "k_scale") for module in network.modules())
    reference = _reference(recipe, plan, caches=caches)
    with torch.inference_mode(), quiet():
        plain, wanted = _run(recipe, feeds, {}), _run(recipe, feeds, reference)
        jittered = _run(recipe, feeds, _jittered(plan, reference))
        found = restored = _output(network, feeds)
        if not has_experts(plan):
            _restore(recipe, plan, network)
            restored = _output(network, feeds)
    share = OWN_SCALES if derives_integers(plan.packed.values()) else TIES
    noise, jitter = _mean_square(plain - wanted), _mean_square(jittered - wanted)
    allowed = max(share * noise, JITTERS * jitter) + ROUNDED * _mean_square(wanted)
    difference = float((found - wanted).abs().max())
    if _mean_square(restored - wanted) > allowed:
        raise ExportError(
            f"{checker} computes outputs that differ from the emulator's by {difference:.3g}, "
            "more than rounding explains"
        )
    exact = float((restored - wanted).abs().max())
    notes = [*_notes(plan, caches), f"largest output {float(wanted.abs().max()):.3g}"]
    if exact < difference:
        notes.insert(0, f"{exact:.2g} with weights that it does not round to bfloat16")
    if JITTERS * jitter > share * noise:
        own = float((jittered - wanted).abs().max())
        notes.insert(0, f"last bits of weights alone move the emulator by {own:.2g}")
    return Check(checker=checker, compared="outputs", difference=difference, note="; ".join(notes))


@contextlib.contextmanager
def _readable(plan: FolderPlan, out: Path) -> Iterator[Path]:
    """The folder, or one with unpacked weights where transformers would load it wrongly.

    It keeps experts as stacks, which are no modules that a scheme could be applied to.
    """
    if not has_experts(plan):
        yield out
        return
    schemes, tensors = schemes_of(out, "compressed-tensors"), read_tensors(out)
    for module, packed in plan.tensors.items():
        weight = unpacked(module, schemes[module], tensors)
        for name in packed:
            del tensors[f"{module}.{name}"]
        tensors[f"{module}.weight"] = weight.contiguous()
    config = {k: v for k, v in read_json(out / CONFIG).items() if k != "quantization_config"}
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / SINGLE, metadata={"format": "pt"})
        write_json(Path(folder) / CONFIG, config)
        yield Path(folder)


def _loaded(plan: FolderPlan, out: Path) -> Any:
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


def _feeds(recipe: Recipe) -> dict[str, Tensor]:
    assert recipe.samples is not None, "the caller has asked"
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    return {name: value for name, value in typed.items() if isinstance(value, Tensor)}


def _run(
    recipe: Recipe, feeds: Mapping[str, Tensor], quantizers: Mapping[str, Quantize]
) -> Tensor:
    found = recipe.program.run(feeds, quantizers).outputs[next(iter(recipe.graph.outputs))]
    assert isinstance(found, Tensor)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jittered:
    """A quantizer whose values are moved in the last bits of a float32."""

    quantize: Quantize

    def __call__(self, x: Tensor) -> Tensor:
        values = self.quantize(x)
        moves = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) - 0.5
        return values * (1 + LAST_BITS * moves)


def _jittered(plan: FolderPlan, reference: Mapping[str, Quantize]) -> dict[str, Quantize]:
    weights = {layer.linear.weight_key for layer in plan.layers.quantized.values()}
    return {
        key: _Jittered(quantize=quantize) if key in weights else quantize
        for key, quantize in reference.items()
    }


def _output(network: Any, feeds: Mapping[str, Tensor]) -> Tensor:
    result = network(**feeds, return_dict=True)
    value: Tensor = result[output_name(result)]
    return value


def _restore(recipe: Recipe, plan: FolderPlan, network: Any) -> None:
    """Gives packed layers their weights in float32.

    Unpacked to bfloat16 (`verify` has seen by how much that moves them), they put many a 4-bit
    activation behind them on the next step: a tenth of its noise, which could hide a mistake.
    """
    for module, weight in emulated(recipe, plan.layers):
        network.get_submodule(module).weight.data.copy_(weight)


def _reference(recipe: Recipe, plan: FolderPlan, *, caches: bool) -> dict[str, Quantize]:
    """Quantizers that the loaded network applies.

    Casts of activations are left out, since it runs in float32, caches where it keeps plain ones,
    and all that is no weight where it was given plain weights.
    """
    weights = {linear.weight_key for linear in plan.layers.linears.values()}
    if has_experts(plan):
        return {key: quantize for key, quantize in recipe.bound.items() if key in weights}
    left_out = {
        key
        for key, quantize in recipe.bound.items()
        if isinstance(quantize, Emulator)
        and quantize.quantizer.format.scale is None
        and key not in weights
    }
    if not caches:
        left_out |= {one.key for parts in plan.layers.caches.values() for one in parts.values()}
    return {key: quantize for key, quantize in recipe.bound.items() if key not in left_out}


def _notes(plan: FolderPlan, caches: bool) -> Iterator[str]:
    yield "both in float32"
    if has_experts(plan):
        yield "of weights alone: it keeps experts as stacks and quantizes no inputs of theirs"
    elif derives_integers(plan.packed.values()):
        yield "its scales of dynamic integers are of its own, vLLM's are the emulator's"
    if meets_mxfp4(plan.packed.values()):
        yield ROUNDED_UP
    if plan.cache_scales and not caches:
        yield "it keeps caches in full precision, vLLM quantizes them"
    if missing := without_kernel(plan.layers, "vllm"):
        yield f"vLLM has no kernel for {some(missing, 1)}"


def _mean_square(x: Tensor) -> float:
    return float(x.double().square().mean())
