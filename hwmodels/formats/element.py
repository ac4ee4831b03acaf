"""The arithmetic element that a number encoding is to a compute unit."""

from __future__ import annotations

from hwmodels.formats.quantizer import Encoding, Quantizer

# Floats that units multiply, narrowest first: (exponent bits, mantissa bits).
UNIT_FLOATS: dict[str, tuple[int, int]] = {
    "e2m1": (2, 1), "e2m3": (2, 3), "e3m2": (3, 2), "e4m3": (4, 3), "e5m2": (5, 2),
    "fp16": (5, 10), "bf16": (8, 7), "tf32": (8, 10), "fp32": (8, 23),
}  # fmt: skip


def unit_element(encoding: Encoding) -> str:
    """The element that a unit computes this encoding as.

    Signed and unsigned integers of one width are the same to an integer unit; a float that no
    unit has becomes the narrowest one that holds its exponent and its mantissa; posits, codebooks
    and logarithmic numbers are decoded to fp16 or wider by look-up and named `decoded`.
    """
    if encoding.kind in ("int", "fixed"):
        return f"int{encoding.bits}"
    if encoding.kind == "exponent":
        return "bf16"
    if encoding.kind != "float":
        return "decoded"
    if encoding.name in UNIT_FLOATS:
        return encoding.name
    for name, (exponent_bits, mantissa_bits) in UNIT_FLOATS.items():
        if encoding.exponent_bits <= exponent_bits and encoding.mantissa_bits <= mantissa_bits:
            return name
    return "fp32"


def is_integer(element: str) -> bool:
    """Whether a unit's element is an integer; decoded numbers (posits, codebooks) are floats."""
    return element not in UNIT_FLOATS and element.removeprefix("int").isdigit()


def operand_element(quantizer: Quantizer | None, default: str) -> str:
    """The element of an operand; None is the default 16-bit format."""
    return default if quantizer is None else unit_element(quantizer.format.element)


def is_plain(quantizer: Quantizer | None) -> bool:
    """Whether the operand is a float of 16 bits or more without a scale: a cast at most."""
    return quantizer is None or (
        quantizer.format.scale is None
        and quantizer.format.element.kind == "float"
        and quantizer.format.element.bits >= 16
    )


def is_wide(quantizer: Quantizer | None) -> bool:
    """Whether the operand is a plain float of more than 16 bits."""
    return quantizer is not None and is_plain(quantizer) and quantizer.format.element.bits > 16
