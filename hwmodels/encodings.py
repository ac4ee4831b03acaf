"""Every named element and scale encoding, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hwmodels.formats import Encoding, Overflow, Specials

IEEE = "IEEE 754-2019, table 3.5"
OFP8 = "OCP 8-bit Floating Point Specification (OFP8) 1.0, section 5"
OCP_MX = "OCP Microscaling Formats (MX) Specification 1.0"


def float_encoding(
    name: str,
    exponent_bits: int,
    mantissa_bits: int,
    *,
    specials: Specials = "ieee",
    overflow: Overflow = "saturate",
    bias: int | None = None,
    signed: bool = True,
    subnormals: bool = True,
    source: str = "",
) -> Encoding:
    """A float ExMy; `bias` is that of IEEE (2^(exponent_bits-1) - 1) unless given."""
    return Encoding(
        name=name,
        kind="float",
        bits=signed + exponent_bits + mantissa_bits,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=2 ** (exponent_bits - 1) - 1 if bias is None else bias,
        signed=signed,
        specials=specials,
        overflow=overflow,
        subnormals=subnormals,
        source=source,
    )


def integer_encoding(
    bits: int, *, signed: bool = True, symmetric: bool = True, source: str = ""
) -> Encoding:
    """An integer: `int4` is symmetric (-7..7), `int4a` uses every code, `uint4` has no sign."""
    name = f"int{bits}" if signed else f"uint{bits}"
    return Encoding(
        name=name + ("a" if signed and not symmetric else ""),
        kind="int",
        bits=bits,
        signed=signed,
        symmetric=symmetric,
        source=source or "two's complement",
    )


FLOATS = (
    float_encoding("fp32", 8, 23, overflow="inf", source=f"{IEEE} (binary32)"),
    float_encoding(
        "tf32", 8, 10, overflow="inf",
        source="NVIDIA A100 whitepaper (2020), 'TF32': 19 bits of a tensor stored as binary32",
    ).replaced(bits=32),
    float_encoding(
        "bf16", 8, 7, overflow="inf", source="Intel BFLOAT16 Hardware Numerics Definition 1.0"
    ),
    float_encoding("fp16", 5, 10, overflow="inf", source=f"{IEEE} (binary16)"),
    float_encoding("e5m2", 5, 2, source=f"{OFP8} (E5M2, saturating conversion)"),
    float_encoding("e4m3", 4, 3, specials="fn", source=f"{OFP8} (E4M3, saturating conversion)"),
    float_encoding("e3m2", 3, 2, specials="none", source=f"{OCP_MX}, section 5.3.2 (FP6 E3M2)"),
    float_encoding("e2m3", 2, 3, specials="none", source=f"{OCP_MX}, section 5.3.2 (FP6 E2M3)"),
    float_encoding("e2m1", 2, 1, specials="none", source=f"{OCP_MX}, section 5.3.3 (FP4 E2M1)"),
)  # fmt: skip

SCALES = (
    Encoding(
        name="e8m0", kind="exponent", bits=8, exponent_bits=8, bias=127, signed=False,
        specials="fn", source=f"{OCP_MX}, section 5.4.1 (E8M0)",
    ),
)  # fmt: skip

INTEGERS = (
    *(integer_encoding(bits) for bits in range(2, 17)),
    *(integer_encoding(bits, symmetric=False) for bits in range(2, 17)),
    *(integer_encoding(bits, signed=False) for bits in range(1, 17)),
)

FIXED = (
    Encoding(
        name="mxint8_element", kind="fixed", bits=8, mantissa_bits=6,
        source=f"{OCP_MX}, section 5.3.4 (INT8: two's complement, scale 2^-6; -2 is not used)",
    ),
)  # fmt: skip

ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {encoding.name: encoding for encoding in (*FLOATS, *SCALES, *INTEGERS, *FIXED)}
)
