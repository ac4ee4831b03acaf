"""Quantized layers as torchao's configurations, as its `config_to_dict` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible
from dse.export.hugging_face.layers import Layer
from dse.export.hugging_face.rows import is_element, is_nvfp4, refuse_transforms
from hwmodels.formats.quantizer import LEARNED_ROUNDINGS, Format, Quantizer

Config = dict[str, Any]
MX_GROUP = 32
MX_RULES = ("floor", "ceil", "even", "rceil")
SCALE_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
MX_ELEMENTS = {"e2m1": "float4_e2m1fn_x2", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}
VERSIONS = {
    "FqnToConfig": 1, "NVFP4WeightOnlyConfig": 1, "MXDynamicActivationMXWeightConfig": 1,
    "NVFP4DynamicActivationNVFP4WeightConfig": 1,
    "PerGroup": 1, "PerAxis": 1, "PerRow": 1, "PerTensor": 1,
}  # fmt: skip
"""Of the classes whose version is not 2; a reader warns where it has another one."""
KNOWN = (
    "weights alone of 2 to 8 bits (int8_channel, int4_g128, uint4_g32), e4m3_channel, e4m3_tensor "
    "and nvfp4 are written, and with dynamic activations int8_channel with int8_token, int4_g32 "
    "with uint8_token, e4m3_channel with e4m3_token, nvfp4 with nvfp4, mxfp8 with mxfp8 and mxfp4 "
    "with mxfp4"
)


def config_of(layer: Layer, given: Mapping[str, Quantizer]) -> Config:
    """The configuration of a layer.

    Args:
        layer: the layer.
        given: the assignment, whose quantizers say what was asked for before it was settled.

    Raises:
        Inexpressible: torchao has none with those formats.
    """
    linear = layer.linear
    weight = layer.weight.quantizer.format
    _refuse_values(layer.weight, given.get(linear.weight_key))
    if layer.input is None:
        found = _weight_only(weight)
    else:
        _refuse_values(layer.input, given.get(linear.input_key))
        if layer.input.fixed is not None:
            raise Inexpressible(
                "a configuration in JSON holds no calibrated scales", instead=KNOWN
            )
        found = _dynamic(weight, layer.input.quantizer.format)
    if found is None:
        met = "16-bit activations" if layer.input is None else layer.input.quantizer.name
        raise Inexpressible(
            f"torchao has no configuration of {weight.name} with {met}", instead=KNOWN
        )
    return found


def _refuse_values(emulator: Emulator, asked: Quantizer | None) -> None:
    """Raises `Inexpressible` where torchao would not come near the emulator's values."""
    quantizer = asked or emulator.quantizer
    refuse_transforms(quantizer)
    if quantizer.rounding != "nearest_even":
        learned = quantizer.rounding in LEARNED_ROUNDINGS
        raise Inexpressible(
            f"torchao rounds to nearest, and a configuration holds no {quantizer.rounding} codes"
            if learned
            else f"torchao rounds to nearest, not {quantizer.rounding}",
            instead="the same format without a rounding of its own is written",
        )
    if emulator.state is not None and emulator.state.values is not None:
        raise Inexpressible(
            "torchao rounds the checkpoint's weights, and a configuration holds no tuned ones",
            instead="the same trial before it was tuned is written",
        )
    if quantizer.statistic not in ("auto", "absmax", "minmax"):
        raise Inexpressible(
            f"torchao takes the largest magnitude of what it sees, not {quantizer.statistic}",
            instead="the same format with absmax is written",
        )


def _weight_only(format: Format) -> Config | None:
    if is_nvfp4(format):
        return _object("NVFP4WeightOnlyConfig", use_dynamic_per_tensor_scale=True)
    if is_element(format.element, "e4m3") and (where := _by_row_or_tensor(format)) is not None:
        return _object(
            "Float8WeightOnlyConfig", weight_dtype=_dtype("float8_e4m3fn"), granularity=where
        )
    if _is_int8(format):
        return _object("Int8WeightOnlyConfig", granularity=_by_row_or_tensor(format))
    found = _integers(format)
    if found is None:
        return None
    dtype, where, mapping, scale = found
    return _object(
        "IntxWeightOnlyConfig",
        weight_dtype=dtype, granularity=where, mapping_type=mapping, scale_dtype=scale,
    )  # fmt: skip


def _dynamic(weight: Format, met: Format) -> Config | None:
    """Of a weight that meets activations whose scales are dynamic."""
    if is_nvfp4(weight) and is_nvfp4(met):
        return _object(
            "NVFP4DynamicActivationNVFP4WeightConfig", use_dynamic_per_tensor_scale=True
        )
    if is_element(weight.element, "e4m3") and is_element(met.element, "e4m3"):
        sides = (weight.granularity, met.granularity)
        where = _by_row_or_tensor(weight)
        if where is not None and sides in (("channel", "token"), ("tensor", "tensor")):
            return _object(
                "Float8DynamicActivationFloat8WeightConfig",
                activation_dtype=_dtype("float8_e4m3fn"),
                weight_dtype=_dtype("float8_e4m3fn"), granularity=[where, where],
            )  # fmt: skip
    if (microscaled := _microscaled(weight, met)) is not None:
        return microscaled
    if not _is_token_of_8_bits(met):
        return None
    if _is_int8(weight) and weight.granularity == "channel" and met.element.signed:
        return _object("Int8DynamicActivationInt8WeightConfig", granularity=_object("PerRow"))
    found = _integers(weight)
    if found is None or met.element.signed:
        return None
    dtype, where, mapping, scale = found
    return _object(
        "Int8DynamicActivationIntxWeightConfig",
        weight_dtype=dtype, weight_granularity=where, weight_mapping_type=mapping,
        weight_scale_dtype=scale, act_mapping_type=_enum("MappingType", "ASYMMETRIC"),
    )  # fmt: skip


def _microscaled(weight: Format, met: Format) -> Config | None:
    scale = weight.scale
    name = next((name for name in MX_ELEMENTS if is_element(weight.element, name)), None)
    same = replace(weight, name="", source="") == replace(met, name="", source="")
    if scale is None or name is None or not same or weight.tensor_scale is not None:
        return None
    shared = is_element(scale.encoding, "e8m0") and weight.granularity == "group"
    if not shared or weight.group != MX_GROUP or scale.rule not in MX_RULES:
        return None
    return _object(
        "MXDynamicActivationMXWeightConfig",
        block_size=MX_GROUP,
        activation_dtype=_dtype(MX_ELEMENTS[name]),
        weight_dtype=_dtype(MX_ELEMENTS[name]),
        scaling_mode=_enum("ScaleCalculationMode", scale.rule.upper()),
    )


def _integers(format: Format) -> tuple[Config, Config, Config, Config] | None:
    """Type, granularity, mapping and type of scales of an integer weight."""
    element, scale = format.element, format.scale
    if element.kind != "int" or not 1 <= element.bits <= 8 or scale is None:
        return None
    if format.granularity == "group":
        where = _object("PerGroup", group_size=format.group)
    elif format.granularity == "channel":
        where = _object("PerAxis", axis=0)
    else:
        return None
    stored = next((SCALE_TYPES[one] for one in SCALE_TYPES if is_element(scale.encoding, one)), "")
    if not stored or format.offset is not None or format.tensor_scale is not None:
        return None
    if (format.zero_point is None) != element.signed:
        return None
    # The first of the symmetric ones divides by half the codes, the second by the largest.
    kind = "SYMMETRIC_NO_CLIPPING_ERR" if element.symmetric else "SYMMETRIC"
    mapping = _enum("MappingType", kind if format.zero_point is None else "ASYMMETRIC")
    return _dtype(f"int{element.bits}"), where, mapping, _dtype(stored)


def _is_int8(format: Format) -> bool:
    return is_element(format.element, "int8") and _by_row_or_tensor(format) is not None


def _is_token_of_8_bits(format: Format) -> bool:
    return format.granularity == "token" and any(
        is_element(format.element, name) for name in ("int8", "int8a", "uint8")
    )


def _by_row_or_tensor(format: Format) -> Config | None:
    """Granularity of scales in fp32 that one row or the whole tensor has."""
    if format.scale is None or format.tensor_scale is not None:
        return None
    if format.zero_point is not None or not is_element(format.scale.encoding, "fp32"):
        return None
    return {
        "channel": _object("PerRow"), "token": _object("PerRow"), "tensor": _object("PerTensor")
    }.get(format.granularity)  # fmt: skip


def configuration(layers: Mapping[str, Config]) -> Config:
    """The configuration of a network, by the full names of its modules."""
    return _object("FqnToConfig", fqn_to_config=dict(layers))


def _object(type: str, **fields: Any) -> Config:
    return {"_type": type, "_version": VERSIONS.get(type, 2), "_data": fields}


def _enum(type: str, name: str) -> Config:
    return {"_type": type, "_data": name}


def _dtype(name: str) -> Config:
    return {"_type": "torch.dtype", "_data": name}
