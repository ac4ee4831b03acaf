"""The catalogue: names, sources, sizes."""

from __future__ import annotations

import json

import pytest

from hwmodels.errors import FormatError, HardwareError, UnknownFormatError
from hwmodels.formats.catalog import (
    ENCODINGS,
    FORMATS,
    SCHEMES,
    format,
    quantizer,
    scheme,
    uniform,
)
from hwmodels.formats.names import quantizer_object

COMPOSED = [
    "e2m1@g32/ue5m3+fp32", "uint4@g128/fp16~uint4", "int8@b128x128", "e4m3@token", "posit9_1",
    "int12@g7/e8m0-rceil", "e3m3", "e2m1@g256/fp32-ratio", "lns7_2@channel", "fixed10_6", "e5m3",
    "uint4@g32/uint6-fitted~~uint6^256/fp16", "int3@g64/fp16-fitted",
    "uint4@g32/fp16-fitted~~fp16",
]  # fmt: skip
QUANTIZERS = [
    "int8:static", "int4_g128:mse", "e4m3:stochastic8", "int4:percentile99.9:static",
    "nvfp4:stochastic:hadamard(16)", "int8:delayed", "e2m1@g32/ue5m3:odd",
    "int4_channel:absmax", "int8:delayed32", "int4_channel:requant8", "int4:mse:gptq:uncorrected",
]  # fmt: skip


@pytest.mark.parametrize("name", [*FORMATS, *COMPOSED, *QUANTIZERS])
def test_names_round_trip(name):
    assert quantizer(name).name == name


@pytest.mark.parametrize("name", ["mxfp4", "nf4_g64", *COMPOSED, *QUANTIZERS])
def test_json_objects_round_trip(name):
    text = json.dumps(quantizer_object(quantizer(name)))
    assert quantizer(json.loads(text)) == quantizer(name)


@pytest.mark.parametrize("entry", [*FORMATS.values(), *ENCODINGS.values(), *SCHEMES.values()])
def test_every_entry_has_a_source(entry):
    assert entry.source


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("mxfp4", 4.25), ("mxfp6", 6.25), ("mxfp8", 8.25), ("mxint8", 8.25), ("nvfp4", 4.5),
        ("int4_g128", 4.125), ("int4_g64", 4.25), ("uint4_g128", 4 + 20 / 128), ("int8", 8.0),
        ("int4@g1024/fp16", 4.015625), ("dynamic8_g2048", 8 + 32 / 2048), ("tf32", 32.0),
        ("e4m3@b128x128", 8 + 32 / 16384), ("ternary", 2.0),
        ("q2_k", 2.625), ("q3_k", 3.4375), ("q4_k", 4.5), ("q5_k", 5.5), ("q6_k", 6.5625),
        ("q4_1", 5.0), ("iq4_xs", 4.25),
    ],
)  # fmt: skip
def test_bits_per_element_count_scales_and_zero_points(name, bits):
    assert format(name).bits_per_element == bits


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("int8_channel", (64, 32), 64 * 32 + 64 * 4),
        ("int4_g32", (64, 48), 64 * 24 + 64 * 2 * 2),
        ("nvfp4", (8, 32), 8 * 16 + 8 * 2 + 4),
        ("e4m3@b128x128", (130, 256), 130 * 256 + 2 * 2 * 4),
        ("q4_k", (3, 512), 3 * 2 * 144),
        ("q6_k", (3, 300), 3 * 225 + 3 * 19 + 3 * 2 * 2),
    ],
)
def test_storage_bytes_of_a_weight(name, shape, expected):
    assert format(name).storage_bytes(shape, (1,)) == expected


@pytest.mark.parametrize(
    ("name", "largest", "normal", "subnormal"),
    [
        ("e4m3", 448, 2**-6, 2**-9),
        ("e5m2", 57344, 2**-14, 2**-16),
        ("e3m2", 28, 2**-2, 2**-4),
        ("e2m3", 7.5, 1, 2**-3),
        ("e2m1", 6, 1, 0.5),
        ("ue5m3", 61440, 2**-14, 2**-17),
        ("ue5m3_fn", 114688, 2**-14, 2**-17),
        ("fp16", 65504, 2**-14, 2**-24),
        ("mxint8_element", 1.984375, 2**-6, 2**-6),
    ],
)
def test_published_extremes(name, largest, normal, subnormal):
    """OCP OFP8 table 1, OCP MX tables 2 to 5, arXiv 2509.17791 and 2609.02846."""
    encoding = ENCODINGS[name]
    assert (encoding.max, encoding.min_normal, encoding.min_subnormal) == (
        largest, normal, subnormal,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mxpf4", "unknown format 'mxpf4'; did you mean 'mxfp4'?"),
        ("int8:statc", "'statc' is no statistic, timing, rounding, correction or transform; did"),
        ("e2m1@g32/ue5m9", "unknown encoding 'ue5m9'"),
        ("e4m3@g32/e8m0-flor", "unknown scale rule 'flor'"),
        ("", "unknown format ''"),
    ],
)
def test_unknown_names_say_what_is_known(name, message):
    with pytest.raises(UnknownFormatError) as caught:
        quantizer(name)
    assert message in str(caught.value)
    assert isinstance(caught.value, HardwareError)
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8:percentile0:static", "percentile: expected more than 0 and at most 100, got 0"),
        ("int8:percentile200", "percentile: expected more than 0 and at most 100, got 200"),
        ("int8:stochastic32", "expected 0 to 31 random bits"),
        ("int8:delayed0", "expected at least 1 earlier step, got 0"),
        ("int8:mse:absmax", "expected one statistic, got 'mse' and 'absmax'"),
        ("int8:static:dynamic", "expected one timing, got 'static' and 'dynamic'"),
        ("int8:nearest_even:stochastic4", "expected one rounding"),
    ],
)
def test_words_that_cannot_hold_are_refused(name, message):
    with pytest.raises(FormatError) as caught:
        quantizer(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"format": "int8", "statistic": "percentile", "percentile": 0}, "got 0"),
        ({}, "field 'format' is missing"),
        ({"format": "int8", "timng": "static"}, "unknown field 'timng'; did you mean 'timing'"),
        ({"format": {"name": "x"}}, "fields missing: element"),
        ({"format": 3}, "expected a name or an object"),
        ({"format": "int8", "rounding": "up1"}, "rounding: unknown 'up1'"),
    ],
)
def test_bad_objects_name_the_field(spec, message):
    with pytest.raises(FormatError) as caught:
        quantizer(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_carry_their_name(name):
    assert scheme(name).name == name
    assert scheme(name).other.name == "bf16"


@pytest.mark.parametrize(
    ("name", "weight", "operand"),
    [
        ("w8a16", "int8_channel", None), ("w4a16", "int4_g128", None),
        ("w8a8_int8", "int8_channel", "int8_token"),
        ("w8a8_int8_static", "int8_channel", "uint8:static"),
        ("w8a8_fp8", "e4m3_tensor", "e4m3_tensor:static"),
        ("w8a8_fp8_dynamic", "e4m3_channel", "e4m3_token"),
        ("w4a8_fp8", "int4_g128", "e4m3_token"), ("w4a4_nvfp4", "nvfp4", "nvfp4:static"),
        ("w4a4_mxfp4", "mxfp4", "e2m1@g32/e8m0-even"), ("w6a6_mxfp6", "mxfp6", "mxfp6"),
        ("w8a8_mxfp8", "mxfp8", "e4m3@g32/e8m0-rceil"),
    ],
)  # fmt: skip
def test_a_scheme_is_what_its_source_says(name, weight, operand):
    found = scheme(name)
    assert found.weight == quantizer(weight)
    assert found.input == (None if operand is None else quantizer(operand))


def test_unknown_scheme_names_the_nearest():
    with pytest.raises(UnknownFormatError, match="did you mean 'w8a8_fp8'"):
        scheme("w8a8fp8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bf16", "bf16"), ("fp16", "fp16"), ("e4m3", "e4m3_tensor:static"), ("mxfp4", "mxfp4"),
        ("int8", "int8:static"), ("int8_channel", "int8_channel"), ("e2m1", "e2m1_tensor:static"),
        ("posit8_1", "posit8_1_tensor:static"), ("posit9_1", "posit9_1_tensor:static"),
        ("posit16_1", "posit16_1"), ("takum16", "takum16"),
        ("int8:mse", "int8:mse"),
    ],
)  # fmt: skip
def test_uniform_scales_narrow_elements_per_tensor(name, expected):
    assert uniform(name).name == expected


def test_words_behind_a_scheme_change_its_weights():
    learned = scheme("w4a8_fp8:gptq")
    assert learned.name == "w4a8_fp8:gptq"
    assert learned.weight == quantizer("int4_g128:gptq")
    assert learned.input == scheme("w4a8_fp8").input
    with pytest.raises(UnknownFormatError, match=r"'gptk' is no statistic.*did you mean 'gptq'"):
        scheme("w4a16:gptk")


@pytest.mark.parametrize("name", ["int8:2:4", "w8a8_2of4", "int8_sparse24", "mxfp4:1:2:static"])
def test_sparse_weights_are_refused_by_name(name):
    with pytest.raises(UnknownFormatError, match=r"sparse weights .* are not modelled"):
        quantizer(name)
