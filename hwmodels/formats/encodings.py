"""Every named element and scale encoding, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hwmodels.formats.codebooks import CODEBOOKS
from hwmodels.formats.quantizer import Encoding, Overflow, Specials

IEEE = "IEEE 754-2019, table 3.5"
OFP8 = "OCP 8-bit Floating Point Specification (OFP8) 1.0, section 5"
OCP_MX = "OCP Microscaling Formats (MX) Specification 1.0"

ML_DTYPES = "ml_dtypes 0.6"
FNUZ = "Noune et al., 8-bit Numerical Formats for Deep Neural Networks, arXiv 2206.02915"
UE5M3 = "arXiv 2509.17791 and 2609.02846, which differ in the maximum"
MASKS = "To FP8 and Back Again, arXiv 2405.18710, section 4 (BF16 with masked bits)"
TAKUM = (
    "Hunhold, Takum Arithmetic, arXiv 2404.18603 (linear takums); exact definition, no second "
    "implementation"
)
POSIT = "Standard for Posit Arithmetic (2022), section 3; es as a parameter"
LNS = (
    "sign and a fixed-point log2, lowest code for zero; exact definition, no second implementation"
)


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


def posit_encoding(bits: int, exponent_bits: int) -> Encoding:
    """A posit; Inf becomes NaR, which is NaN here."""
    return Encoding(
        name=f"posit{bits}_{exponent_bits}",
        kind="posit",
        bits=bits,
        exponent_bits=exponent_bits,
        overflow="nan",
        source=POSIT,
    )


def logarithmic_encoding(bits: int, fraction_bits: int) -> Encoding:
    """A sign and a fixed-point log2 with `fraction_bits`; the lowest code is zero."""
    return Encoding(
        name=f"lns{bits}_{fraction_bits}",
        kind="log",
        bits=bits,
        exponent_bits=bits - 1 - fraction_bits,
        mantissa_bits=fraction_bits,
        source=LNS,
    )


def fixed_encoding(bits: int, fraction_bits: int) -> Encoding:
    """Two's complement fixed point that uses every code."""
    return Encoding(
        name=f"fixed{bits}_{fraction_bits}",
        kind="fixed",
        bits=bits,
        mantissa_bits=fraction_bits,
        symmetric=False,
        source=f"two's complement, {fraction_bits} fraction bits",
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

SMALL_FLOATS = (
    float_encoding("e4m3fnuz", 4, 3, bias=8, specials="fnuz", source=FNUZ),
    float_encoding("e5m2fnuz", 5, 2, bias=16, specials="fnuz", source=FNUZ),
    float_encoding("e4m3b11fnuz", 4, 3, bias=11, specials="fnuz", source=ML_DTYPES),
    float_encoding("e4m3_ieee", 4, 3, source=f"{ML_DTYPES}, float8_e4m3 (IEEE specials)"),
    float_encoding("e3m4", 3, 4, source=f"{ML_DTYPES}, float8_e3m4 (IEEE specials)"),
    float_encoding("ue5m3", 5, 3, signed=False, source=f"{UE5M3}; top exponent reserved"),
    float_encoding("ue5m3_fn", 5, 3, signed=False, specials="fn", source=f"{UE5M3}; up to 0xFE"),
    float_encoding(
        "ue4m3", 4, 3, signed=False, specials="fn", source="NVIDIA PTX ISA 8.7, ue4m3"
    ).replaced(bits=8),
    *(
        float_encoding(
            f"p3109_8p{p}", 8 - p, p - 1, bias=1 << (7 - p), specials="p3109",
            source=f"IEEE P3109 interim report (binary8p{p})",
        )
        for p in range(1, 8)
    ),
    *(float_encoding(f"e8m{m}", 8, m, source=MASKS) for m in range(1, 7)),
    float_encoding("e7m7", 7, 7, source=MASKS),
)  # fmt: skip

TAPERED = (
    *(posit_encoding(bits, es) for bits in (4, 5, 6, 7, 8, 10, 12, 16) for es in (0, 1, 2, 3)),
    Encoding(name="takum8", kind="takum", bits=8, overflow="nan", source=TAKUM),
    Encoding(name="takum16", kind="takum", bits=16, overflow="nan", source=TAKUM),
    *(logarithmic_encoding(bits, f) for bits, f in ((4, 1), (6, 2), (8, 3), (8, 4), (16, 10))),
)

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
    *(fixed_encoding(bits, f) for bits, f in ((4, 2), (8, 4), (8, 7), (16, 8), (16, 12))),
    Encoding(
        name="mxint8_element", kind="fixed", bits=8, mantissa_bits=6,
        source=f"{OCP_MX}, section 5.3.4 (INT8: two's complement, scale 2^-6; -2 is not used)",
    ),
)  # fmt: skip

ENCODINGS: Mapping[str, Encoding] = MappingProxyType(
    {
        encoding.name: encoding
        for encoding in (
            *FLOATS,
            *SMALL_FLOATS,
            *TAPERED,
            *SCALES,
            *INTEGERS,
            *FIXED,
            *CODEBOOKS,
        )
    }
)
