"""Checks of a configuration by torchao itself, against the emulator."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.errors import ExportError
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.hugging_face.folder import CONFIG
from dse.export.hugging_face.layers import Layers, emulated_weight
from dse.export.torchao.floor import raised_activations
from dse.imports.checkpoint import read_json
from dse.imports.signature import output_name
from dse.imports.trace import quiet

PACKAGES = ("torchao", "transformers")
RECOMPUTED = "scales are recomputed"
OTHER_RULE = 4.0
"""Mean square of a difference over that of the quantization noise: two grids of the same step, one
beside the other, differ by twice the noise, and searched ranges are narrower."""
ROUNDED = 2.0**-16
"""The same over the values themselves, for networks in bfloat16."""


def checks(recipe: Recipe, layers: Layers, out: Path) -> tuple[Check, ...]:
    """Weights and outputs under a written configuration.

    Raises:
        ExportError: torchao cannot read it, or comes to other values than its own rules explain.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return (_unrun("torchao", f"needs {', '.join(missing)}"),)
    with _hushed():
        return _checks(recipe, layers, out)


def _checks(recipe: Recipe, layers: Layers, out: Path) -> tuple[Check, ...]:
    checker = f"torchao {metadata.version('torchao')}"
    configs = _read(out, checker)
    if set(configs) != set(layers.quantized):
        raise ExportError(f"{checker} reads other modules than were written")
    network, left = _quantized(recipe, configs)
    weights = [
        _difference(recipe, layers, network, module, checker)
        for module in configs
        if module not in left
    ]
    few = f"; {len(left)} more need a GPU ({next(iter(left.values()))})" if left else ""
    check = Check(
        checker=checker,
        compared=f"{len(weights)} weights",
        difference=max(weights, default=None),
        note=RECOMPUTED + few,
    )
    raised = () if recipe.samples is None else raised_activations(recipe, _feeds(recipe))
    if left:
        return (check, _unrun(f"{checker} (outputs)", "they need a GPU"), *raised)
    return (check, _outputs(recipe, network, checker), *raised)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without what torchao says about kernels that this machine has not."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _read(out: Path, checker: str) -> dict[str, Any]:
    """The package's own objects, by module."""
    import torchao.prototype.mx_formats.inference_workflow as _registers  # noqa: F401, PLC0415
    from torchao.core.config import config_from_dict  # noqa: PLC0415 (an extra)

    try:
        found = config_from_dict(json.loads(out.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ExportError(f"{checker} cannot read what was written: {error}") from error
    configs: dict[str, Any] = found.fqn_to_config
    return configs


def _quantized(recipe: Recipe, configs: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """The checkpoint's network under a configuration, and the modules that need a GPU."""
    import transformers  # noqa: PLC0415 (an extra)
    from torchao.quantization import FqnToConfig, quantize_  # noqa: PLC0415 (an extra)

    assert recipe.checkpoint is not None, "can_express has asked for one"
    architecture = read_json(recipe.checkpoint / CONFIG)["architectures"][0]
    network = getattr(transformers, architecture).from_pretrained(
        recipe.checkpoint, dtype=torch.bfloat16, attn_implementation="eager"
    )
    network = network.eval()
    left: dict[str, str] = {}
    for module, config in configs.items():
        _untie(network, module)
        try:
            quantize_(network, FqnToConfig({module: _on_the_host(config)}), filter_fn=None)
        except AssertionError as error:  # its own words for a machine without the kernel
            left[module] = " ".join(str(error).split())[:160]
    return network, left


def _untie(network: Any, module: str) -> None:
    """Gives a layer a weight of its own, which an embedding may have, too."""
    layer = network.get_submodule(module)
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)


def _on_the_host(config: Any) -> Any:
    """The same numbers without kernels of a GPU, and without changing the process's settings."""
    from torchao.quantization.quantize_.common import KernelPreference  # noqa: PLC0415

    if hasattr(config, "set_inductor_config"):
        config.set_inductor_config = False
    if type(config).__name__.startswith("MX"):
        config.kernel_preference = KernelPreference.EMULATED
    return config


def _difference(recipe: Recipe, layers: Layers, network: Any, module: str, checker: str) -> float:
    """The largest between a module's weight and the emulator's."""
    weight = network.get_submodule(module).weight
    if not hasattr(weight, "dequantize") or type(weight) in (Tensor, torch.nn.Parameter):
        raise ExportError(f"{checker} leaves {module} as it is")
    layer = layers.quantized[module]
    constant = recipe.constant(layer.linear.weight_key)
    assert constant is not None, "a linear layer has a constant weight"
    plain = layer.linear.matrix(constant.detach().float())
    wanted, found = emulated_weight(recipe, layer), weight.dequantize().float()
    _judge(found, wanted, plain, f"{checker} comes to other values of {module}")
    return float((found - wanted).abs().max())


def _outputs(recipe: Recipe, network: Any, checker: str) -> Check:
    checker = f"{checker} (outputs)"
    if recipe.samples is None:
        return _unrun(checker, "there are no samples to run")
    feeds = _feeds(recipe)
    name = next(iter(recipe.graph.outputs))
    with torch.inference_mode():
        plain = recipe.program.run(feeds).outputs[name]
        wanted = recipe.program.run(feeds, recipe.bound).outputs[name]
        result = network(**feeds, return_dict=True)
        found = result[output_name(result)].float()
    assert isinstance(plain, Tensor)
    assert isinstance(wanted, Tensor)
    _judge(found, wanted, plain, f"{checker} differ from the emulator's")
    return Check(
        checker=checker,
        compared="outputs",
        difference=float((found - wanted).abs().max()),
        note=f"in bfloat16; {RECOMPUTED}",
    )


def _feeds(recipe: Recipe) -> dict[str, Tensor]:
    assert recipe.samples is not None, "the caller has asked"
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    return {name: value for name, value in typed.items() if isinstance(value, Tensor)}


def _judge(found: Tensor, wanted: Tensor, plain: Tensor, what: str) -> None:
    """Raises `ExportError` where recomputed scales do not explain a difference."""
    noise = _mean_square(wanted - plain)
    if _mean_square(found - wanted) > OTHER_RULE * noise + ROUNDED * _mean_square(wanted):
        worst = float((found - wanted).abs().max())
        raise ExportError(f"{what} by {worst:.3g}, more than recomputed scales explain")


def _mean_square(x: Tensor) -> float:
    return float(x.double().square().mean())


def _unrun(checker: str, why: str) -> Check:
    return Check(checker=checker, compared="nothing", note=f"not run: {why}")
