"""The network of a Hugging Face folder as `transformers` builds it: structure without weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.errors import CheckpointError, nearest
from dse.imports.checkpoint import read_json
from dse.imports.experts import EXPERTS, register
from dse.imports.trace import quiet

CONFIG = "config.json"
QUANTISED = ("quantization_config", "compression_config")
"""Keys of a configuration whose weights are quantised."""
QUANTISED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Files that ModelOpt, AutoGPTQ and AutoAWQ write beside it."""


def read_config(folder: Path) -> Any:
    """The folder's configuration as `transformers` reads it; no code of the folder runs.

    Raises:
        CheckpointError: No configuration, custom code, an unknown family.
    """
    content = read_json(folder / CONFIG)
    transformers = _transformers(folder)
    family = str(content.get("model_type", ""))
    if family not in transformers.CONFIG_MAPPING:
        custom = content.get("auto_map")
        reason = "needs code of its own (auto_map), which is never run" if custom else "is unknown"
        known = nearest(family, list(transformers.CONFIG_MAPPING)) if not custom else ""
        raise CheckpointError(
            f"{folder / CONFIG}: model_type {family!r} {reason} to transformers "
            f"{transformers.__version__}{known}"
        )
    try:
        with quiet():
            return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        message = f"{folder / CONFIG}: transformers cannot read it: {_first_line(error)}"
        raise CheckpointError(message) from error


def refuse_quantised(content: Mapping[str, Any], folder: Path) -> None:
    """Raises `CheckpointError` where a configuration, or a file beside it, says so."""
    said = next((content[key] for key in QUANTISED if content.get(key)), None)
    file = next((name for name in QUANTISED_FILES if (folder / name).is_file()), None)
    if said is None and file is None:
        return
    name = file
    if said is not None:
        named = said if isinstance(said, dict) else {}
        name = named.get("quant_method") or named.get("quant_algo") or "no method named"
    raise CheckpointError(
        f"{folder / CONFIG}: the weights are quantised already ({name}); expected a "
        "checkpoint in float32, float16 or bfloat16 (give the unquantised one)"
    )


def build(config: Any, folder: Path) -> Any:
    """The network in eval mode, parameters on torch's `meta` device, computed buffers real.

    Raises:
        CheckpointError: `transformers` has no such class, or cannot build it.
    """
    with quiet():  # transformers imports whatever quantises, which says so
        register()
        cls = _network_class(config, folder)
    config._attn_implementation = "eager"
    config._experts_implementation = EXPERTS
    try:
        with quiet(), torch.device("meta"):
            network = cls(config).eval()
        network.config.use_cache = True
        _compute_buffers(network)
    except Exception as error:
        raise CheckpointError(
            f"{folder}: transformers cannot build {cls.__name__}: {_first_line(error)}"
        ) from error
    return network


def _network_class(config: Any, folder: Path) -> Any:
    transformers = _transformers(folder)
    names = getattr(config, "architectures", None)
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise CheckpointError(
            f"{folder / CONFIG}: architectures: expected a list with the class of the network, "
            f"got {names!r}"
        )
    for name in names:
        cls = getattr(transformers, name, None)
        if isinstance(cls, type) and issubclass(cls, nn.Module):
            return cls
    raise CheckpointError(
        f"{folder / CONFIG}: architecture {names[0]!r} is not in transformers "
        f"{transformers.__version__}; code that comes with a model is never run"
    )


def _transformers(folder: Path) -> Any:
    try:
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise CheckpointError(
            f"{folder}: a Hugging Face folder needs transformers: pip install 'dse[hf]'"
        ) from error
    return transformers


def _compute_buffers(network: Any) -> None:
    """Gives buffers that no checkpoint holds (rotary frequencies, positions) their values.

    `transformers` itself builds on the meta device and then calls `_init_weights` for what a
    checkpoint lacks; parameters stay on meta, where initialising does nothing.
    """
    for module in network.modules():
        if not module._buffers:
            continue
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.zeros_like(buffer, device="cpu")
        with torch.no_grad():
            owner = _pretrained_owner(network, module)
            owner._init_weights(module)


def _pretrained_owner(network: Any, module: nn.Module) -> Any:
    """The innermost pretrained network around a module: its rules initialise it."""
    owner = network
    for candidate in network.modules():
        if hasattr(candidate, "_init_weights") and any(m is module for m in candidate.modules()):
            owner = candidate
    return owner


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
