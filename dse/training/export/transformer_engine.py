"""A factory of quantizers for Transformer Engine's `CustomRecipe`.

Against the source of version 2.20.2: `transformer_engine/common/recipe` and
`transformer_engine/pytorch/custom_recipes`. It needs a GPU; nothing here has run there. Its
references of quantizers run on a CPU: tests compare what files of NVFP4 make of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dse.training.export.layers import WIDE, Layers, beyond, layers_of
from dse.training.method import Method, Operand

VERSION = "2.20.2"
TENSORS = {
    "input": ("activation@fprop", "activation@wgrad"),
    "weight": ("weight@fprop", "weight@dgrad"),
    "grad_output": ("activation_gradient@dgrad", "activation_gradient@wgrad"),
}
"""The operand that is multiplied as it lies (rowwise), and transposed (columnwise)."""
CURRENT = (
    "Float8CurrentScalingQuantizer(DType.k{}, device=torch.device('cuda'), "
    "force_pow_2_scales=False, amax_epsilon=0.0)"
)
BLOCK = (
    "Float8BlockQuantizer(fp8_dtype=DType.kFloat8E4M3, rowwise=True, columnwise=True, "
    "amax_epsilon=0.0, force_pow_2_scales=False, block_scaling_dim={})"
)
QUANTIZERS: Mapping[str, str] = {
    **dict.fromkeys(WIDE, "IdentityQuantizer()"),
    "e4m3_tensor": CURRENT.format("Float8E4M3"),
    "e5m2_tensor": CURRENT.format("Float8E5M2"),
    "e4m3@g32/e8m0-rceil": "MXFP8Quantizer(fp8_dtype=DType.kFloat8E4M3)",
    "e4m3@g128": BLOCK.format(1),
    "e4m3@b128x128": BLOCK.format(2),
}
DELAYED = {"e4m3_tensor:delayed1024": "E4M3", "e5m2_tensor:delayed1024": "E5M2"}
NVFP4 = {"nvfp4": False, "nvfp4:stochastic": False, "e2m1@b16x16/e4m3+fp32": True}
"""Whether blocks are of two dimensions."""
ROTATION = 16
TEMPLATE = '''"""{title}

{source}

For Transformer Engine {version}, written against its source and run on no GPU by its writer.
Attention, the optimizer and the loss scale are as the training loop has them.
{remarks}
    recipe = CustomRecipe(qfactory=factory)
    with transformer_engine.pytorch.autocast(enabled=True, recipe=recipe):
        ...
"""

from fnmatch import fnmatchcase

import torch
from transformer_engine.common.recipe import CustomRecipe, Format
from transformer_engine.pytorch import (
    Float8BlockQuantizer,
    Float8CurrentScalingQuantizer,
    MXFP8Quantizer,
    NVFP4Quantizer,
)
from transformer_engine.pytorch.constants import DType
from transformer_engine.pytorch.quantization import DelayedScalingRequest
from transformer_engine.pytorch.tensor.hybrid_tensor import HybridQuantizer
from transformer_engine.pytorch.tensor.identity_tensor import IdentityQuantizer

LAYERS = {{
{layers}
}}


def factory(role):
    """The quantizer of a tensor; high precision for what is no linear layer."""
    if role is None or role.module_type not in ("linear", "grouped_linear"):
        return IdentityQuantizer()
    for pattern, tensors in LAYERS.items():
        if fnmatchcase(role.name, pattern) and role.tensor_type in tensors:
            return tensors[role.tensor_type]()
    return IdentityQuantizer()


recipe = CustomRecipe(qfactory=factory)
'''


def can_express(method: Method) -> tuple[str, ...]:
    """One line for each part of a method that a `CustomRecipe` cannot say."""
    found = list(beyond(method))
    for layers in layers_of(method):
        for key, operand in layers.operands.items():
            if reason := _reason(operand, key):
                found.append(f"{layers.where}: {key}: {reason}")
        found += _of_delayed(layers)
    return tuple(dict.fromkeys(found))


def write(method: Method, name: str) -> str:
    """The file's text; only of what `can_express` finds nothing against."""
    chosen = layers_of(method)
    every = [one for layers in chosen for one in layers.operands.values()]
    remarks = (
        "\nStochastic rounding clips as the library's kernels do: the method's headroom is left "
        "out.\n"
        if any(one.headroom != 1 for one in every)
        else ""
    )
    return TEMPLATE.format(
        title=f"Method {name}.",
        source=f"From: {method.source}.",
        version=VERSION,
        remarks=remarks,
        layers="\n".join(_entry(layers) for layers in chosen),
    )


def _reason(operand: Operand, key: str) -> str:
    """The part of an operand that is not expressible; empty where all is."""
    plain = replace(operand, hadamard=0, signs="none", scales="plain", headroom=1.0, of="original")
    if plain != Operand(format=operand.format):
        return "slopes of rounding and scaled channels are not expressible"
    if operand.format in NVFP4:
        if operand.scales == "eden":
            return "scales by eden are not expressible"
        if operand.signs == "fresh" or operand.hadamard not in (0, ROTATION):
            return f"rotations are of {ROTATION} with fixed signs"
        if operand.hadamard and not key.endswith("@wgrad"):
            return "rotations are those of wgrad"
        if operand.hadamard and operand.scales == "four_over_six":
            return "scales of four over six are not chosen behind a rotation"
        if operand.headroom not in (1.0, 1.0625):
            return f"headroom {operand.headroom:g} is not expressible"
        return ""
    if operand.hadamard or operand.scales != "plain" or operand.headroom != 1:
        return f"rotations, scales and headroom are those of nvfp4, not of {operand.format}"
    if operand.format not in QUANTIZERS and operand.format not in DELAYED:
        known = ", ".join((*QUANTIZERS, *DELAYED, *NVFP4))
        return f"{operand.format} is none of its formats ({known})"
    return ""


def _of_delayed(layers: Layers) -> list[str]:
    """Delayed scales are one request for both directions of all tensors."""
    names = {key: one.format for key, one in layers.operands.items()}
    delayed = {key for key, name in names.items() if name in DELAYED}
    if not delayed:
        return []
    forward = {name for key, name in names.items() if not key.startswith("activation_gradient")}
    gradient = {name for key, name in names.items() if key.startswith("activation_gradient")}
    one_backward = len(gradient) == 1 and gradient <= DELAYED.keys()
    fine = forward == {"e4m3_tensor:delayed1024"} and one_backward
    if fine:
        return []
    return [
        f"{layers.where}: delayed scales are those of all tensors of a layer, E4M3 forward and "
        "one format backward"
    ]


def _entry(layers: Layers) -> str:
    lines = [f"    {layers.pattern!r}: {{"]
    for tensor, (row, column) in TENSORS.items():
        made = _made(layers, row, column)
        lines.append(f"        {tensor!r}: lambda: {made},")
    return "\n".join([*lines, "    },"])


def _made(layers: Layers, row: str, column: str) -> str:
    first, second = layers.operands[row], layers.operands[column]
    if first.format in DELAYED:
        hybrid = DELAYED[layers.operands["activation_gradient@dgrad"].format] == "E5M2"
        return f"DelayedScalingRequest(fp8_format=Format.{'HYBRID' if hybrid else 'E4M3'})"
    if first == second and not first.hadamard:
        return _quantizer(first)
    source = ", columnwise_source='rowwise_dequantized'" if second.of == "forward" else ""
    return (
        f"HybridQuantizer(rowwise_quantizer={_quantizer(first)}, "
        f"columnwise_quantizer={_quantizer(second)}{source})"
    )


def _quantizer(operand: Operand) -> str:
    if operand.format not in NVFP4:
        return QUANTIZERS[operand.format]
    turned = bool(operand.hadamard)
    options: dict[str, object] = {
        "with_rht": turned,
        "with_post_rht_amax": turned,
        "with_2d_quantization": NVFP4[operand.format],
        "stochastic_rounding": operand.format.endswith(":stochastic"),
        "with_random_sign_mask": operand.signs == "fixed",
        "nvfp4_use_4over6": operand.scales == "four_over_six",
    }
    if options["nvfp4_use_4over6"]:
        # By default it keeps 448, which a scale of 4 clips, and sums absolute errors.
        options |= {"nvfp4_e4m3_max": 256, "nvfp4_4over6_err_mode": "'MSE'"}
    said = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"NVFP4Quantizer(fp4_dtype=DType.kFloat4E2M1, {said})"
