"""Every named format and scheme, and how a name in a file becomes a quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hwmodels.errors import UnknownFormatError, nearest
from hwmodels.formats.encodings import ENCODINGS, OCP_MX
from hwmodels.formats.gguf import GGUF_FORMATS
from hwmodels.formats.names import parse_quantizer, with_words
from hwmodels.formats.quantizer import Encoding, Format, Granularity, Quantizer, Scale

__all__ = [
    "ENCODINGS", "FORMATS", "SCHEMES", "Scheme", "format", "is_scheme", "quantizer", "scheme",
    "uniform",
]  # fmt: skip

FP32_SCALE = Scale(encoding=ENCODINGS["fp32"])
FP16_SCALE = Scale(encoding=ENCODINGS["fp16"])
E8M0_FLOOR = Scale(encoding=ENCODINGS["e8m0"], rule="floor")
E4M3_SCALE = Scale(encoding=ENCODINGS["e4m3"])
TAPERED_BITS = 15
"""Tapered elements up to this width are scaled, or ten bits would lose more than eight."""
FP8_SCALED = "FP8 Formats for Deep Learning, arXiv 2209.05433"
WIDEST_UNDER_FP16 = 8
"""Integers up to this width have group scales in fp16, as files of them do."""
FBGEMM = "FBGEMM, arXiv 2101.05615"
ZEROQUANT = "ZeroQuant, arXiv 2206.01861, section 4.1"
AFFINE = "Jacob et al., arXiv 1712.05877, equation 1; ONNX QuantizeLinear"
GPTQ = "GPTQ, arXiv 2210.17323, section 5 (group size 128); scales in fp16 up to 8 bits"
NVFP4 = "NVIDIA, 'Introducing NVFP4' (2025); block scales of compressed-tensors and vLLM's kernels"


def _plain(encoding: Encoding) -> Format:
    return Format(name=encoding.name, element=encoding, source=encoding.source)


def _per(name: str, element: str, granularity: Granularity, source: str) -> Format:
    return Format(
        name=name,
        element=ENCODINGS[element],
        granularity=granularity,
        scale=FP32_SCALE,
        source=source,
    )


def _grouped(name: str, element: str, group: int, scale: Scale, source: str) -> Format:
    return Format(
        name=name,
        element=ENCODINGS[element],
        granularity="group",
        group=group,
        scale=scale,
        source=source,
    )


def _scale_of_groups(bits: int) -> Scale:
    """The scale of a group of integers: where they are wider than its 11 digits allow, fp32.

    A rounded scale clips the largest value, and 1/32767 of a weight is subnormal in fp16: 16 bits
    lost more than 13.
    """
    return FP16_SCALE if bits <= WIDEST_UNDER_FP16 else FP32_SCALE


def _affine(name: str, bits: int, granularity: Granularity, group: int = 0) -> Format:
    element = ENCODINGS[f"uint{bits}"]
    return Format(
        name=name,
        element=element,
        granularity=granularity,
        group=group,
        scale=_scale_of_groups(bits) if granularity == "group" else FP32_SCALE,
        zero_point=element,
        source=AFFINE,
    )


def _microscaled(name: str, element: str, section: str) -> Format:
    return _grouped(name, element, 32, E8M0_FLOOR, f"{OCP_MX}, {section}")


_PLAIN = tuple(
    _plain(encoding)
    for encoding in ENCODINGS.values()
    if encoding.kind not in ("int", "exponent") and not encoding.name.endswith("_element")
)
_FLOAT_SCALED = tuple(
    _per(f"{element}_{granularity}", element, granularity, FP8_SCALED)
    for element in ("e4m3", "e5m2")
    for granularity in ("tensor", "channel", "token")
)  # fmt: skip
_INTEGERS = tuple(
    entry
    for bits in range(2, 17)
    for entry in (
        _per(f"int{bits}", f"int{bits}", "tensor", FBGEMM),
        _per(f"int{bits}_channel", f"int{bits}", "channel", FBGEMM),
        _per(f"int{bits}_token", f"int{bits}", "token", ZEROQUANT),
        _affine(f"uint{bits}", bits, "tensor"),
        _affine(f"uint{bits}_channel", bits, "channel"),
        _affine(f"uint{bits}_token", bits, "token"),
        *(
            _grouped(f"int{bits}_g{group}", f"int{bits}", group, _scale_of_groups(bits), GPTQ)
            for group in (32, 64, 128)
        ),
        *(_affine(f"uint{bits}_g{group}", bits, "group", group) for group in (32, 64, 128)),
    )
)
_CODEBOOKS = tuple(
    _grouped(f"{name}_g{group}", name, group, FP32_SCALE, source)
    for name, groups, source in (
        ("nf4", (64, 128), "QLoRA, arXiv 2305.14314, section 3 (blocks of 64)"),
        ("fp4_bnb", (64, 128), "bitsandbytes 0.50, quantize_fp4 (blocks of 64)"),
        ("dynamic8", (256, 2048), "8-bit Optimizers, arXiv 2110.02861 (blocks of 2048)"),
        ("udynamic8", (256, 2048), "8-bit Optimizers, arXiv 2110.02861 (blocks of 2048)"),
    )
    for group in groups
)
_BLOCKS = (
    _microscaled("mxfp8", "e4m3", "table 1 (MXFP8, E4M3)"),
    _microscaled("mxfp8_e5m2", "e5m2", "table 1 (MXFP8, E5M2)"),
    _microscaled("mxfp6", "e2m3", "table 1 (MXFP6, E2M3)"),
    _microscaled("mxfp6_e3m2", "e3m2", "table 1 (MXFP6, E3M2)"),
    _microscaled("mxfp4", "e2m1", "table 1 (MXFP4)"),
    _microscaled("mxint8", "mxint8_element", "table 1 (MXINT8)"),
    Format(
        name="nvfp4",
        element=ENCODINGS["e2m1"],
        granularity="group",
        group=16,
        scale=E4M3_SCALE,
        tensor_scale=ENCODINGS["fp32"],
        source=NVFP4,
    ),
)

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            *_PLAIN,
            *_FLOAT_SCALED,
            *_INTEGERS,
            *_CODEBOOKS,
            *_BLOCKS,
            *GGUF_FORMATS,
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The field's name for a uniform recipe.

    It covers every Gemm, MatMul and Conv with a weight, except embeddings and a final vocabulary
    projection; everything else, attention's own products included, takes `other`.
    """

    name: str
    weight: Quantizer | None
    """None: weights take `other`."""
    input: Quantizer | None
    """The activation that meets the weight; None: it takes `other`."""
    other: Quantizer
    source: str


def quantizer(spec: str | Mapping[str, object]) -> Quantizer:
    """The quantizer of a name or of a JSON object.

    A name is a format's, followed by what differs from the defaults in any order:
    `int8:static`, `int4_g128:mse`, `e4m3:stochastic8`, `int4:percentile99.9:static`.
    Formats that the catalogue lacks are spelled out: `e2m1@g32/ue5m3+fp32` (see
    `hwmodels.formats.compose`). An object has the fields of `Quantizer`, with `format` a name or
    an object in turn.

    Raises:
        UnknownFormatError: No such format, or a word that means nothing.
        FormatError: An object whose fields do not fit.
    """
    return parse_quantizer(spec, FORMATS, ENCODINGS)


def format(name: str) -> Format:
    """The catalogue's format of that name.

    Raises:
        UnknownFormatError: There is none; the message has the nearest name.
    """
    return parse_quantizer(name.partition(":")[0], FORMATS, ENCODINGS).format


def uniform(name: str) -> Quantizer:
    """The quantizer that `--format NAME` puts at every site.

    An element of 8 bits or less that has no scale of its own is scaled per tensor, static, by the
    statistic that suits it (`Quantizer.settled`): the absolute maximum, or where tapered formats
    have their precision (those up to `TAPERED_BITS`). Wider ones are cast. A quantizer name that
    says more is taken as it is.

    Raises:
        UnknownFormatError: No such format.
    """
    chosen = quantizer(name)
    element = chosen.format.element
    widest = TAPERED_BITS if element.is_tapered else 8
    if element.bits > widest or chosen.format.granularity != "tensor" or ":" in name:
        return chosen
    scaled = chosen.format
    if scaled.scale is None:
        scaled = FORMATS.get(f"{name}_tensor") or Format(
            name=f"{name}_tensor", element=scaled.element, scale=FP32_SCALE, source=scaled.source
        )
    return chosen.replaced(format=scaled, timing="static")


def _scheme(name: str, weight: str, operand: str, source: str) -> Scheme:
    return Scheme(
        name=name,
        weight=quantizer(weight),
        input=None if operand == "bf16" else quantizer(operand),
        other=quantizer("bf16"),
        source=source,
    )


LITERT = "LiteRT 8-bit quantization specification (symmetric weights, affine activations)"
_VLLM = "compressed-tensors preset schemes (vllm-project/compressed-tensors, quant_scheme.py)"

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            _scheme("w8a16", "int8_channel", "bf16", _VLLM),
            _scheme("w4a16", "int4_g128", "bf16", _VLLM),
            _scheme("w8a8_int8", "int8_channel", "int8_token", _VLLM),
            _scheme("w8a8_int8_static", "int8_channel", "uint8:static", LITERT),
            _scheme("w8a8_fp8", "e4m3_tensor", "e4m3_tensor:static", _VLLM),
            _scheme("w8a8_fp8_dynamic", "e4m3_channel", "e4m3_token", _VLLM),
            _scheme("w4a8_fp8", "int4_g128", "e4m3_token", _VLLM),
            _scheme("w4a4_nvfp4", "nvfp4", "nvfp4:static", _VLLM),
            _scheme("w4a4_mxfp4", "mxfp4", "e2m1@g32/e8m0-even", _VLLM),
            _scheme("w6a6_mxfp6", "mxfp6", "mxfp6", OCP_MX),
            _scheme("w8a8_mxfp8", "mxfp8", "e4m3@g32/e8m0-rceil", _VLLM),
        )
    }
)


def scheme(name: str) -> Scheme:
    """The catalogue's scheme of that name; words behind colons change its weights.

    `w4a16:gptq` is `w4a16` with weights rounded by GPTQ.

    Raises:
        UnknownFormatError: There is none; the message has the nearest name.
    """
    head, *words = name.split(":")
    if head not in SCHEMES:
        raise UnknownFormatError(
            f"unknown scheme {head!r}{nearest(head, SCHEMES)}; see: dse formats"
        )
    found = SCHEMES[head]
    if not words:
        return found
    return replace(found, name=name, weight=with_words(found.weight or found.other, words, name))


def is_scheme(name: str) -> bool:
    """Whether a name is that of a scheme, with or without words behind it."""
    return name.partition(":")[0] in SCHEMES
