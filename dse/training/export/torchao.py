"""Settings of torchao's training in float8, or of its prototype in MXFP8.

Against torchao 0.18: `torchao.float8` and `torchao.prototype.moe_training`.
"""

from __future__ import annotations

from collections.abc import Mapping

from dse.training.export.layers import WIDE, Layers, beyond, layers_of
from dse.training.method import Method, Operand
from dse.training.roles import MULTIPLIED

CASTS: Mapping[str, str] = {
    "activation@fprop": "cast_config_input",
    "activation@wgrad": "cast_config_input_for_grad_weight",
    "weight@fprop": "cast_config_weight",
    "weight@dgrad": "cast_config_weight_for_grad_input",
    "activation_gradient@dgrad": "cast_config_grad_output",
    "activation_gradient@wgrad": "cast_config_grad_output_for_grad_weight",
}
"""Fields of `Float8LinearConfig`."""
DTYPES = {"e4m3": "torch.float8_e4m3fn", "e5m2": "torch.float8_e5m2"}
ROWS = ("token", "channel")
MX = "e4m3@g32/e8m0-rceil"
FLOAT8 = '''"""Method {name}: torchao's float8 training.

From: {source}.
The optimizer and the loss scale are as the training loop has them.
"""

from fnmatch import fnmatchcase

import torch
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from torchao.float8.config import CastConfig, ScalingGranularity, ScalingType

WIDE = {wide!r}
"""Names of layers that stay as they are."""
CONFIG = Float8LinearConfig(
{casts}
)


def chosen(module, name):
    """Whether a layer is converted."""
    return not any(fnmatchcase(name, pattern) for pattern in WIDE)


def convert(model):
    """The model with its linear layers converted in place."""
    return convert_to_float8_training(model, config=CONFIG, module_filter_fn=chosen)
'''
MXFP8 = '''"""Method {name}: torchao's MXFP8 training (a prototype of torchao).

From: {source}.
The optimizer and the loss scale are as the training loop has them.
"""

from fnmatch import fnmatchcase

import torch
from torchao.prototype.moe_training.config import MXFP8TrainingOpConfig, MXFP8TrainingRecipe
from torchao.quantization import quantize_

WIDE = {wide!r}
"""Names of layers that stay as they are."""
CONFIG = MXFP8TrainingOpConfig.from_recipe(MXFP8TrainingRecipe.{recipe})


def chosen(module, name):
    """Whether a layer is converted."""
    linear = isinstance(module, torch.nn.Linear)
    return linear and not any(fnmatchcase(name, pattern) for pattern in WIDE)


def convert(model):
    """The model with its linear layers converted in place."""
    quantize_(model, CONFIG, filter_fn=chosen)
    return model
'''


def can_express(method: Method) -> tuple[str, ...]:
    """One line for each part of a method that torchao's training has not."""
    found = list(beyond(method))
    *exceptions, rest = layers_of(method)
    found += [
        f"{layers.where}: one setting for all layers, or none: expected '*': bf16"
        for layers in exceptions
        if not layers.is_wide
    ]
    if not _is_mx(rest):
        found += _of_float8(rest)
    return tuple(dict.fromkeys(found))


def write(method: Method, name: str) -> str:
    """The file's text; only of what `can_express` finds nothing against."""
    *exceptions, rest = layers_of(method)
    wide = tuple(one.pattern for one in exceptions)
    common = {"name": name, "source": method.source, "wide": wide}
    if _is_mx(rest):
        wgrad = rest.operands["activation@wgrad"].format in WIDE
        recipe = "MXFP8_RCEIL_WGRAD_WITH_HP" if wgrad else "MXFP8_RCEIL"
        return MXFP8.format(recipe=recipe, **common)
    casts = "\n".join(f"    {CASTS[key]}={_cast(rest, key)}," for key in rest.operands)
    return FLOAT8.format(casts=casts, **common)


def _is_mx(layers: Layers) -> bool:
    """MXFP8 in all products, or in all but that of the weights' gradient."""
    formats = dict(layers.operands)
    wgrad = {formats.pop(f"{role}@wgrad") for role in MULTIPLIED["wgrad"]}
    wide = {Operand(format=name) for name in WIDE}
    mx = {Operand(format=MX)}
    return set(formats.values()) == mx and (wgrad == mx or (len(wgrad) == 1 and wgrad <= wide))


def _of_float8(layers: Layers) -> list[str]:
    found = []
    for key, operand in layers.operands.items():
        if operand != Operand(format=operand.format):
            found.append(f"{layers.where}: {key}: float8 layers know formats alone")
        elif operand.format not in WIDE and not _is_float8(operand):
            found.append(
                f"{layers.where}: {key}: {operand.format} is none of its formats (e4m3 or e5m2 "
                f"with a scale a tensor, token or channel, {MX} in all products, bf16)"
            )
    for pass_, roles in MULTIPLIED.items():
        if len({layers.operands[f"{role}@{pass_}"].format in WIDE for role in roles}) > 1:
            found.append(f"{layers.where}: {pass_}: both factors are in float8, or none is")
    for role in ("activation", "weight", "activation_gradient"):
        seen = {
            one.quantizer.format.element.name
            for key, one in layers.operands.items()
            if key.startswith(f"{role}@") and one.format not in WIDE
        }
        if len(seen) > 1:
            found.append(f"{layers.where}: {role}: one element in both products")
    return found


def _is_float8(operand: Operand) -> bool:
    quantizer = operand.quantizer
    format = quantizer.format
    fine = format.element.name in DTYPES and format.granularity in ("tensor", *ROWS)
    scaled = format.scale is not None and format.scale.encoding.name == "fp32"
    return (
        fine and scaled and quantizer.timing == "dynamic" and quantizer.rounding == "nearest_even"
    )


def _cast(layers: Layers, key: str) -> str:
    """The setting of an operand; one that stays wide names the element of its other product."""
    operand, role = layers.operands[key], key.partition("@")[0]
    narrow = [
        one.quantizer.format.element.name
        for other, one in layers.operands.items()
        if other.startswith(f"{role}@") and one.format not in WIDE
    ]
    options = [f"target_dtype={DTYPES[narrow[0]]}"] if narrow else []
    if operand.format in WIDE:
        options.insert(0, "scaling_type=ScalingType.DISABLED")
    else:
        by_rows = operand.quantizer.format.granularity in ROWS
        kind = "AXISWISE" if by_rows else "TENSORWISE"
        options.insert(0, f"scaling_granularity=ScalingGranularity.{kind}")
    return f"CastConfig({', '.join(options)})"
