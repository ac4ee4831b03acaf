"""Tapered, logarithmic and listed formats: softposit, code tables, rational arithmetic."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from dse.numerics import quantize
from hwmodels.formats.catalog import ENCODINGS
from hwmodels.formats.encoding import takum_value
from hwmodels.formats.numbers import borders, posit_value, sorted_values
from hwmodels.formats.quantizer import Encoding, Format, Quantizer
from tests.numerics.comparison import mismatches, quantized


def _softposit(name):
    softposit = pytest.importorskip("softposit", reason="oracle for posits; compiled from source")
    bits, es = (int(part) for part in name.removeprefix("posit").split("_"))
    if es == 2:
        return lambda value: float(softposit.posit_2(value, bits))
    return {(8, 0): softposit.posit8, (16, 1): softposit.posit16}[bits, es]


POSITS = ["posit8_0", "posit16_1", "posit8_2", "posit5_2", "posit12_2", "posit16_2"]
EXACT = [
    "takum8", "takum16", "lns8_3", "lns16_10", "nf4", "fp4_bnb", "dynamic8", "quantile4", "e8m0",
]  # fmt: skip


@pytest.mark.parametrize("name", POSITS)
def test_posits_are_those_of_softposit(name, fewer_patterns):
    grid = borders(ENCODINGS[name]).astype(np.float32)
    around = [np.nextafter(grid, np.float32(towards)) for towards in (-np.inf, np.inf)]
    near = np.concatenate([grid, *around])
    rng = np.random.default_rng(2)
    x = np.concatenate([
        rng.choice(near, 6000), rng.standard_normal(4000).astype(np.float32),
        rng.choice(fewer_patterns, 6000),
    ])  # fmt: skip
    x = x[np.isfinite(x)]
    oracle = _softposit(name)
    expected = np.array([float(oracle(float(value))) for value in x], np.float32)
    assert mismatches(quantized(x, name), expected + np.float32(0)) == 0


def test_a_posit_has_no_infinity():
    got = quantized(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32), "posit8_1")
    assert np.isnan(got[:3]).all()
    assert got[3] == got[4] == 0


def test_published_posit_ranges():
    """PositNN, arXiv 2105.00053: (8, 0), (8, 1), (8, 2) and (16, 1)."""
    for name, low, high in (("8_0", -6, 6), ("8_1", -12, 12), ("8_2", -24, 24), ("16_1", -28, 28)):
        encoding = ENCODINGS[f"posit{name}"]
        assert (encoding.min_subnormal, encoding.max) == (2.0**low, 2.0**high)
    values = sorted_values(ENCODINGS["posit8_2"])
    assert ((values >= 0.5) & (values < 2)).sum() == 16


def test_posit_codes_by_the_standards_formula():
    """((1 - 3s) + f) * 2^((1 - 2s)(2^es r + e + s)) for s = 0, in rationals."""
    for code in range(1, 128):
        string = f"{code:07b}"
        run = len(string) - len(string.lstrip(string[0]))
        r = run - 1 if string[0] == "1" else -run
        rest = string[run + 1 :]
        e = int((rest[:1] or "0").ljust(1, "0"), 2)
        f = sum(Fraction(int(bit), 2 ** (i + 1)) for i, bit in enumerate(rest[1:]))
        exponent = 2 * r + e
        scale = Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)
        assert Fraction(posit_value(code, 8, 1)) == (1 + f) * scale


@pytest.mark.parametrize("bits", [8, 16])
def test_takum_codes_by_definition(bits):
    """Takum definition 2, every positive code, in rationals; the string read independently."""
    for code in range(1, 1 << (bits - 1)):
        string = f"{code:0{bits - 1}b}".ljust(15, "0")
        d, regime = int(string[0]), int(string[1:4], 2)
        r = regime if d else 7 - regime
        c_bits, mantissa = string[4 : 4 + r], string[4 + r :]
        c = int(c_bits or "0", 2) + (2**r - 1 if d else -(2 ** (r + 1)) + 1)
        m = Fraction(int(mantissa or "0", 2), 2 ** len(mantissa))
        scale = Fraction(2**c) if c >= 0 else Fraction(1, 2**-c)
        assert Fraction(takum_value(code, bits)) == (1 + m) * scale


@pytest.mark.parametrize("name", ["lns4_1", "lns6_2", "lns8_3"])
def test_logarithmic_codes_by_definition(name):
    """Each value v = 2^(k/2^f) has v^(2^f) = 2^k: to half a float32 step, in rationals."""
    encoding = ENCODINGS[name]
    values = [value for value in sorted_values(encoding) if value > 0]
    power, half = 2**encoding.mantissa_bits, Fraction(1, 2**24)
    first = 1 - (1 << (encoding.bits - 2))
    assert len(values) == 1 - 2 * first
    for k, value in enumerate(values, start=first):
        low, high = (Fraction(value) * (1 + sign * half) for sign in (-1, 1))
        target = Fraction(2**k) if k >= 0 else Fraction(1, 2**-k)
        assert low**power <= target <= high**power


@pytest.mark.parametrize("name", EXACT)
def test_nearest_is_the_closest_value_in_exact_arithmetic(name, fewer_patterns):
    encoding = ENCODINGS[name]
    values, between = sorted_values(encoding), borders(encoding)
    rng = np.random.default_rng(3)
    x = np.concatenate([
        between.astype(np.float32), rng.choice(fewer_patterns, 20000),
        (rng.standard_normal(20000) * 0.5).astype(np.float32),
    ])  # fmt: skip
    x = x[np.isfinite(x)]
    got = quantized(x, name)
    index = np.searchsorted(between, x.astype(np.float64))
    tie = np.isin(x.astype(np.float64), between)
    expected = values[index].astype(np.float32)
    assert mismatches(got[~tie], expected[~tie]) == 0
    above = values[np.minimum(index + 1, len(values) - 1)].astype(np.float32)
    assert ((got == expected) | (got == above))[tie].all()


BITSANDBYTES = {
    # sha256 of the float32 bytes of bitsandbytes 0.50.2: create_dynamic_map and get_4bit_type,
    # sorted and without duplicates.
    "dynamic8": "e732639a65f497b4",
    "udynamic8": "305f002cc11278fb",
    "nf4": "8501941daa1b8a90",
    "fp4_bnb": "0d6aedf119646687",
}


@pytest.mark.parametrize("name", BITSANDBYTES)
def test_codebooks_are_the_tables_of_bitsandbytes(name):
    values = np.array(ENCODINGS[name].codes, np.float32)
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == BITSANDBYTES[name]


@pytest.mark.parametrize("mode", ["up", "down", "zero", "odd", "nearest_away", "nearest_zero"])
@pytest.mark.parametrize("name", ["e4m3", "e2m1", "e3m2"])
def test_tables_and_closed_forms_agree(name, mode, fewer_patterns):
    """The look-up of a float's codes is the float's own rounding."""
    encoding = ENCODINGS[name]
    codes = tuple(sorted_values(encoding).tolist())
    listed = Encoding(name="listed", kind="codebook", bits=encoding.bits, codes=codes)
    looked_up = Quantizer(format=Format(name="listed", element=listed), rounding=mode)
    got = quantize(torch.from_numpy(fewer_patterns), looked_up, axes=(-1,)).numpy()
    expected = quantized(fewer_patterns, f"{name}:{mode}") + np.float32(0)
    assert mismatches(got, expected) == 0
