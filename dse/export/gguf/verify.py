"""Checks of a file by gguf-py, transformers and llama.cpp, against the emulator."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.program.feeds import checked
from dse.export.base import Check
from dse.export.gguf.plan import Plan
from dse.imports.trace import quiet
from hwmodels.formats.catalog import quantizer

TIES = 1e-6
"""Share of an output's mean square that sums in another order may differ by."""
PATIENCE_S = 600.0
ROUNDED_ACTIVATIONS = 0.05
"""Mean difference of log-probabilities that llama.cpp's own rounding of activations explains: to
8 bits in blocks of 32 or 256 before every product with packed weights."""
UNREST = 3.0
"""The same over what that rounding does to the emulator itself, which is more in deep networks.
Both are of one token, llama.cpp sums in another order and keeps its cache in 16 bits."""


def checks(plan: Plan, out: Path) -> tuple[Check, ...]:
    """Weights, and outputs of consumers that are installed.

    Raises:
        ExportError: one of them computes something else than the emulator.
    """
    weights = _weights(plan, out)
    samples = _samples(plan)
    if samples is None:
        return (weights, _unrun("transformers and llama.cpp", "there are no samples to run"))
    with torch.inference_mode():
        wanted = _emulated(plan, samples)
    return (
        weights,
        _transformers(plan, out, samples, wanted),
        _llama_cpp(plan, out, samples, wanted),
    )


def _weights(plan: Plan, out: Path) -> Check:
    """Every tensor as gguf-py's own dequantisers read it."""
    import gguf  # noqa: PLC0415 (an extra)

    checker = f"gguf-py {metadata.version('gguf')}"
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    worst = 0.0
    for entry in plan.entries:
        tensor, wanted = stored[entry.name], plan.values(entry)
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(wanted.shape)
        difference = float(np.abs(found - wanted).max(initial=0.0))
        if difference:
            raise ExportError(
                f"{checker} reads {entry.name} with a difference of {difference:.3g}"
            )
        worst = max(worst, difference)
    return Check(checker=checker, compared=f"{len(plan.entries)} tensors", difference=worst)


def _samples(plan: Plan) -> dict[str, Tensor] | None:
    recipe = plan.recipe
    if recipe.samples is None:
        return None
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    return {name: value for name, value in typed.items() if isinstance(value, Tensor)}


def _emulated(plan: Plan, samples: dict[str, Tensor]) -> Tensor:
    """Outputs with quantized constants; a file says nothing about what stands between."""
    recipe = plan.recipe
    constants = {
        key: quantize for key, quantize in recipe.bound.items() if recipe.constant(key) is not None
    }
    return _output(plan, samples, constants)


def _rounded(plan: Plan, samples: dict[str, Tensor]) -> Tensor:
    """Outputs whose activations are rounded as llama.cpp rounds them before packed weights."""
    recipe = plan.recipe
    found = {
        key: quantize for key, quantize in recipe.bound.items() if recipe.constant(key) is not None
    }
    sites = recipe.program.analysis.by_key
    for entry in plan.entries:
        for layer in entry.layers:
            assert entry.type is not None, "a quantized weight has one"
            key = layer.linear.input_key
            block = quantizer(f"int8@g{entry.type.elements}/fp32")
            found[key] = Emulator(quantizer=block, axes=sites[key].contraction_axes)
    return _output(plan, samples, found)


def _output(plan: Plan, samples: dict[str, Tensor], quantizers: Mapping[str, Quantize]) -> Tensor:
    recipe = plan.recipe
    found = recipe.program.run(samples, quantizers).outputs[next(iter(recipe.graph.outputs))]
    assert isinstance(found, Tensor)
    return found.float()


def _transformers(plan: Plan, out: Path, samples: dict[str, Tensor], wanted: Tensor) -> Check:
    """Outputs of the network that transformers loads from the file, in float32."""
    import transformers  # noqa: PLC0415 (an extra)

    checker = f"transformers {transformers.__version__}"
    assert plan.network is not None, "a file was written"
    if unread := plan.network.unread:
        return _unrun(checker, f"its reader of GGUF leaves out {unread}")
    try:
        network = _loaded(out)
    except Exception as error:  # whatever a version lacks
        return _unrun(checker, " ".join(str(error).split())[:160])
    with torch.inference_mode(), quiet():
        found = network(**samples).logits.float()
    difference = float((found - wanted).abs().max())
    if float((found - wanted).square().mean()) > TIES * float(wanted.square().mean()):
        raise ExportError(
            f"{checker} computes outputs that differ from the emulator's by {difference:.3g}, "
            "more than sums in another order explain"
        )
    return Check(checker=checker, compared="outputs", difference=difference)


def _loaded(out: Path) -> Any:
    """The network, read from a link whose name ends as transformers wants it."""
    import transformers  # noqa: PLC0415 (an extra)

    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as folder,
        quiet(),
        contextlib.redirect_stderr(io.StringIO()),  # its progress bars
    ):
        (Path(folder) / "model.gguf").symlink_to(out.absolute())
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
        ).eval()


def _llama_cpp(plan: Plan, out: Path, samples: dict[str, Tensor], wanted: Tensor) -> Check:
    """Log-probabilities of the token after a sample, as llama.cpp computes them."""
    if importlib.util.find_spec("xllamacpp") is None:
        return _unrun("llama.cpp", "needs xllamacpp")
    checker = f"llama.cpp (xllamacpp {metadata.version('xllamacpp')})"
    if plan.vocabulary is None:
        return _unrun(checker, "its server needs a tokenizer, and the folder has none")
    tokens = samples["input_ids"][0].tolist()
    found = _next_token(out, tokens, wanted.shape[-1])
    if isinstance(found, str):
        return _unrun(checker, found)
    expected = wanted[0, -1].double().log_softmax(-1).numpy()
    difference = np.abs(expected - found)
    mean = float(difference[np.isfinite(difference)].mean())
    own = ""
    if mean > ROUNDED_ACTIVATIONS * max(1.0, float(expected.std())):
        with torch.inference_mode():
            rounded = _rounded(plan, samples)[0, -1].double().log_softmax(-1).numpy()
        unrest = float(np.abs(expected - rounded).mean())
        if mean > UNREST * unrest:
            raise ExportError(
                f"{checker} computes log-probabilities that differ from the emulator's by "
                f"{mean:.3g} on average, more than its rounding of activations explains "
                f"({unrest:.3g} in the emulator)"
            )
        own = f", which moves the emulator by {unrest:.2g}"
    return Check(
        checker=checker,
        compared="log-probabilities of a next token",
        difference=float(difference.max()),
        note=f"it rounds activations to 8 bits itself; {mean:.2g} on average{own}",
    )


def _next_token(out: Path, tokens: list[int], size: int) -> np.ndarray[Any, Any] | str:
    """Log-probabilities by token, or why it does not run."""
    script = str(Path(__file__).with_name("llama_cpp.py"))
    # -P: else the modules beside the script would be taken for Python's own (`types`).
    asked = [sys.executable, "-P", script, str(out), str(size), *map(str, tokens)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "GGML_ASSERT" in line]
        return (lines or done.stderr.splitlines() or ["it ended without a word"])[-1][:160]
    found = np.full(size, np.nan)
    for token, value in json.loads(done.stdout.splitlines()[-1]):
        found[int(token)] = value
    return found


def _unrun(checker: str, why: str) -> Check:
    return Check(checker=checker, compared="nothing", note=f"not run: {why}")
