"""Schemes and weights of a folder as the package compressed-tensors reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.errors import ExportError
from dse.export.hugging_face.folder import CONFIG
from dse.imports.checkpoint import read_json


def schemes_of(out: Path, checker: str) -> dict[str, Any]:
    """The package's scheme of every quantized layer, by module.

    Raises:
        ExportError: the package takes the configuration for none.
    """
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


def unpacked(module: str, scheme: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    """A weight as the package decompresses it: (outputs, depth) float32."""
    from compressed_tensors.compressors import BaseCompressor  # noqa: PLC0415 (an extra)

    # A layer's few tensors by name: a mixture of experts has many thousands.
    stored = {
        name: tensors[f"{module}.{name}"] for name in STORED if f"{module}.{name}" in tensors
    }
    for name in ("weight_scale", "weight_global_scale"):
        if name in stored and stored[name].dtype in (torch.float16, torch.bfloat16):
            stored[name] = stored[name].float()  # products in 16 bits would round
    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    weight: Tensor = compressor.decompress(stored, scheme)["weight"]
    return weight.float()


STORED = (
    "weight", "weight_packed", "weight_scale", "weight_global_scale", "weight_zero_point",
    "weight_shape",
)  # fmt: skip
