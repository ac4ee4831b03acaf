"""Checks of a folder by MLX and mlx-lm, against the emulator."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dse.errors import ExportError
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.hugging_face.folder import CONFIG
from dse.export.hugging_face.plan import emulated
from dse.export.mlx.plan import READ, Plan
from dse.imports.checkpoint import read_json
from dse.imports.trace import quiet

TIES = 1e-6
"""Share of an output's mean square that sums in another order may differ by."""
IDS = "input_ids"


def checks(recipe: Recipe, plan: Plan, out: Path) -> tuple[Check, ...]:
    """Weights and outputs of a written folder.

    Raises:
        ExportError: MLX computes something else than the emulator.
    """
    if importlib.util.find_spec("mlx") is None:
        return (_unrun("MLX", "needs mlx (pip install 'mlx[cpu]' on Linux)"),)
    with _on_the_host():
        return (_weights(recipe, plan, out), _outputs(recipe, out))


@contextlib.contextmanager
def _on_the_host() -> Iterator[None]:
    """MLX on the CPU, whose arithmetic has no fused additions, without a C++ compiler."""
    import mlx.core as mx  # noqa: PLC0415 (an extra)

    mx.disable_compile()
    try:
        with mx.stream(mx.cpu):
            yield
    finally:
        mx.enable_compile()


def _weights(recipe: Recipe, plan: Plan, out: Path) -> Check:
    """Every packed weight as MLX unpacks it under the settings that the folder has."""
    import mlx.core as mx  # noqa: PLC0415 (an extra)

    checker = f"MLX {metadata.version('mlx')}"
    settings = read_json(out / CONFIG).get("quantization", {})
    stored: dict[str, Any] = {}
    for path in sorted(out.glob(READ)):
        stored |= mx.load(str(path))
    worst = 0.0
    for module, wanted in emulated(recipe, plan.layers):
        home = plan.layers.home(module)
        found = torch.from_numpy(np.array(_unpacked(stored, home, settings[home])))
        difference = float((found - wanted).abs().max())
        if difference:
            raise ExportError(f"{checker} reads {module} with a difference of {difference:.3g}")
        worst = max(worst, difference)
    return Check(
        checker=checker,
        compared=f"{len(plan.packed)} weights",
        difference=worst,
        note=_note(recipe, plan, out),
    )


def _unpacked(stored: Mapping[str, Any], module: str, settings: Mapping[str, Any]) -> Any:
    """(outputs, depth) in float32: in 16 bits, as networks run, it would round products."""
    import mlx.core as mx  # noqa: PLC0415 (an extra)

    scales, biases = stored[f"{module}.scales"], stored.get(f"{module}.biases")
    if biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(stored[f"{module}.weight"], scales, biases, **settings, dtype=mx.float32)


def _note(recipe: Recipe, plan: Plan, out: Path) -> str:
    notes = []
    if plan.bias_bytes:
        notes.append(
            f"MLX keeps a bias for every group, {plan.bias_bytes} bytes that the cost model does "
            "not count where the format has no offsets"
        )
    config = read_json(out / CONFIG)
    runs = str(config.get("dtype", config.get("torch_dtype"))).removeprefix("torch.")
    others = {
        str(one.tensors["scales"].dtype).removeprefix("torch.")
        for one in plan.packed.values()
        if one.mode == "affine"
    } - {runs}
    if others:
        notes.append(
            f"its network is {runs} and some scales are {', '.join(sorted(others))}, so MLX goes "
            "on in float32 behind them; scales of the network's type are faster"
        )
    return "; ".join(notes)


def _outputs(recipe: Recipe, out: Path) -> Check:
    """Outputs of the network that mlx-lm loads, in float32 as the emulator computes."""
    if importlib.util.find_spec("mlx_lm") is None:
        return _unrun("mlx-lm", "needs mlx-lm")
    checker = f"mlx-lm {metadata.version('mlx-lm')}"
    if recipe.samples is None:
        return _unrun(checker, "there are no samples to run")
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    feeds = {name: value for name, value in typed.items() if isinstance(value, Tensor)}
    if set(feeds) != {IDS}:
        return _unrun(checker, f"it takes {IDS} alone, and the model {', '.join(sorted(feeds))}")
    found = _run(out, feeds[IDS])
    if isinstance(found, str):
        return _unrun(checker, found)
    constants = {
        key: quantize for key, quantize in recipe.bound.items() if recipe.constant(key) is not None
    }
    with torch.inference_mode():
        wanted = recipe.program.run(feeds, constants).outputs[next(iter(recipe.graph.outputs))]
    assert isinstance(wanted, Tensor)
    difference = float((found - wanted).abs().max())
    if float((found - wanted).square().mean()) > TIES * float(wanted.square().mean()):
        raise ExportError(
            f"{checker} computes outputs that differ from the emulator's by {difference:.3g}, "
            "more than sums in another order explain"
        )
    return Check(
        checker=checker, compared="outputs", difference=difference, note="both in float32"
    )


def _run(out: Path, ids: Tensor) -> Tensor | str:
    """Logits, or why there are none."""
    import mlx.core as mx  # noqa: PLC0415 (an extra)

    try:
        with quiet():
            from mlx_lm.utils import load_model  # noqa: PLC0415 (an extra)

            network, _ = load_model(out)
    except (ValueError, ImportError) as error:  # a family that it has not
        return " ".join(str(error).split())[:160]
    network.set_dtype(mx.float32)
    return torch.from_numpy(np.array(network(mx.array(ids.numpy())).astype(mx.float32)))


def _unrun(checker: str, why: str) -> Check:
    return Check(checker=checker, compared="nothing", note=f"not run: {why}")
