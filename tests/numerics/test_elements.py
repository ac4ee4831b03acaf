"""Elements against ml_dtypes and numpy: all bf16, all fp16 and 2 Mi random inputs, no mismatch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from dse.numerics import quantize
from hwmodels.formats.catalog import ENCODINGS
from hwmodels.formats.numbers import sorted_values
from hwmodels.formats.quantizer import Format, Quantizer
from tests.numerics.comparison import mismatches, quantized

DTYPES = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e4m3_ieee": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
OVERFLOWING = {
    "e5m2": "inf", "e4m3": "nan", "e4m3_ieee": "inf", "e3m4": "inf",
    "e4m3fnuz": "nan", "e5m2fnuz": "nan", "e4m3b11fnuz": "nan",
}  # fmt: skip


def _cast(x, name):
    """ml_dtypes' conversion; NaN restored where a format has none."""
    with np.errstate(all="ignore"):
        return np.where(np.isnan(x), x, x.astype(DTYPES[name]).astype(np.float32))


@pytest.mark.parametrize("name", DTYPES)
def test_values_are_those_of_ml_dtypes(name, patterns):
    encoding = ENCODINGS[name]
    x = patterns
    if encoding.overflow == "saturate":
        x = np.clip(x, np.float32(encoding.min), np.float32(encoding.max))
    assert mismatches(quantized(patterns, name), _cast(x, name)) == 0


@pytest.mark.parametrize("name", OVERFLOWING)
def test_overflow_is_an_attribute(name, fewer_patterns):
    element = ENCODINGS[name].replaced(overflow=OVERFLOWING[name])
    overflowing = Quantizer(format=Format(name=name, element=element))
    got = quantize(torch.from_numpy(fewer_patterns), overflowing, axes=(-1,)).numpy()
    assert mismatches(got, _cast(fewer_patterns, name)) == 0


@pytest.mark.parametrize("name", DTYPES)
def test_codes_are_those_of_ml_dtypes(name):
    bits = ENCODINGS[name].bits
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    decoded = codes.view(DTYPES[name]).astype(np.float32)
    expected = np.unique(decoded[np.isfinite(decoded)]).astype(np.float64)
    assert np.array_equal(sorted_values(ENCODINGS[name]), expected)


@pytest.mark.parametrize("name", DTYPES)
def test_properties_are_those_of_finfo(name):
    encoding, info = ENCODINGS[name], ml_dtypes.finfo(DTYPES[name])
    assert encoding.max == float(info.max)
    assert encoding.min == float(info.min)
    assert encoding.min_normal == float(info.smallest_normal)
    assert encoding.min_subnormal == float(info.smallest_subnormal)


def test_fp32_is_the_identity(patterns):
    assert mismatches(quantized(patterns, "fp32"), patterns) == 0


def test_bf16_is_torchs_cast(patterns):
    expected = torch.from_numpy(patterns).to(torch.bfloat16).float().numpy()
    assert mismatches(quantized(patterns, "bf16"), expected) == 0
