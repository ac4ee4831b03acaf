"""Runtimes with integer convolutions: what runs natively, and why not the rest."""

from __future__ import annotations

import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.execution import execution
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.platform import load_platform
from hwmodels.runtimes.runtime import OperandLayout
from hwmodels.work.work import Op, Operand, OpKind

CONVOLUTION = {"N": 1, "C": 16, "H": 32, "W": 32, "O": 32, "groups": 1, "OH": 32, "OW": 32,
               "kh": 3, "kw": 3}  # fmt: skip
PRODUCT = {"M": 64, "K": 256, "N": 256}


def _ran(platform: str, weight: str, activation: str | None, kind: OpKind) -> tuple[str, str, str]:
    """Status, name of the mode and note of an op under a runtime."""
    found = load_platform(platform)
    weights = Operand(
        name="weight", value="w", shape=(32, 16, 3, 3), quantizer=_known(weight), is_weight=True
    )
    inputs = Operand(name="input", value="x", shape=(1, 16, 32, 32), quantizer=_known(activation))
    sizes = CONVOLUTION if kind == "conv2d" else PRODUCT
    op = Op(name="op", kind=kind, sizes=sizes, operands=(weights, inputs))
    ran = execution(op, found.device, found.runtime)
    return ran.status, ran.mode.name if ran.mode else "", str(ran.note)


def _known(name: str | None) -> Quantizer | None:
    return catalog.uniform(name) if name else None


@pytest.mark.parametrize(
    ("platform", "weight", "activation", "mode"),
    [
        ("xeon-8480:openvino", "int8_channel", "uint8:static", "int8"),
        ("cpu-avx2:openvino", "int8_channel", "uint8:static", "int8"),
        ("cpu-avx2:litert", "int8_channel", "int8a:static", "int8"),
        ("l4:tensorrt", "int8_channel", "int8:static", "int8"),
        ("h100-sxm:tensorrt", "e4m3_tensor", "e4m3_tensor:static", "fp8_conv"),
        ("hexagon-x-elite:qnn", "int8_channel", "uint8:static", "a8w8"),
        ("hexagon-x-elite:qnn", "int8_channel", "int16:static", "a16w8"),
        ("hexagon-x-elite:qnn", "int4_channel", "int16:static", "a16w4"),
        ("hexagon-x-elite:qnn", "int4_g32", "int16:static", "a16w4_block"),
        ("hexagon-x-elite:qnn", "int4_channel", "uint8:static", "a8w4"),
        ("m4-ane:coreml", "int8_channel", "int8:static", "w8a8"),
        ("ethos-u55:vela", "int8_channel", "int8a:static", "int8"),
    ],
)
def test_an_integer_convolution_runs_natively(
    platform: str, weight: str, activation: str, mode: str
) -> None:
    assert _ran(platform, weight, activation, "conv2d")[:2] == ("native", mode)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (
            ("xeon-8480:openvino", "int4_channel", None, "conv2d"),
            "emulated", "no conv2d kernel for weight int4_channel",
        ),
        (
            ("xeon-8480:openvino", "int4_channel", "uint8:static", "conv2d"),
            "emulated", "no conv2d kernel for weight int4_channel with input uint8:static",
        ),
        (
            ("l4:tensorrt", "int8_channel", "uint8:static", "conv2d"),
            "emulated", "no conv2d kernel for weight int8_channel with input uint8:static",
        ),
        (
            ("a100-sxm-40gb:tensorrt", "e4m3_tensor", "e4m3_tensor:static", "conv2d"),
            "emulated", "fp8_conv of tensorrt needs sm_89 and later",
        ),
        (
            ("m4-max:coreml", "int8_channel", "int8:static", "conv2d"),
            "substituted", "coreml runs it natively on m4-ane",
        ),
        (
            ("cpu-avx2:litert", "int8_g32", "int8:static", "gemm"),
            "emulated", "no gemm kernel",
        ),
        (
            ("h100-sxm:qnn", "int8_channel", "int8:static", "conv2d"),
            "emulated", "qnn runs on hexagon",
        ),
    ],
)  # fmt: skip
def test_what_has_no_kernel_says_why(
    asked: tuple[str, str, str | None, OpKind], status: str, words: str
) -> None:
    found, _, note = _ran(*asked)
    assert found == status
    assert words in note


@pytest.mark.parametrize(
    ("platform", "weight", "kind"),
    [
        ("xeon-8480:openvino", "int4_g128", "gemm"),
        ("xeon-8480:openvino", "nf4_g64", "gemm"),
        ("xeon-8480:openvino", "mxfp4", "gemm"),
        ("cpu-avx2:openvino", "int8_channel", "gemm"),
        ("l4:tensorrt", "int4_g128", "gemm"),
        ("m4-max:coreml", "int4_g32", "conv2d"),
        ("m4-max:coreml", "quantile4", "conv2d"),
        ("m4-ane:coreml", "nf4_g64", "conv2d"),
        ("hexagon-x-elite:qnn", "int4_channel", "conv2d"),
    ],
)
def test_weights_alone_are_widened_where_the_runtime_does_so(
    platform: str, weight: str, kind: OpKind
) -> None:
    assert _ran(platform, weight, None, kind)[0] == "weight_only"


def test_a_kernel_of_one_codebook_takes_no_other_decoded_numbers() -> None:
    layout = _weights_of("openvino", "nf4_weights")
    assert layout.accepts(catalog.uniform("nf4_g64"), "bf16")
    assert not layout.accepts(catalog.uniform("posit8_1"), "bf16")
    palettes = _weights_of("coreml", "palettes")
    assert palettes.accepts(catalog.uniform("posit8_1"), "bf16")  # a table holds any 256 values


def _weights_of(runtime: str, name: str) -> OperandLayout:
    mode = next(mode for mode in load_runtime(runtime).modes if mode.name == name)
    return mode.operands["weight"]


@pytest.mark.parametrize("name", ["openvino", "litert", "tensorrt", "qnn", "coreml"])
def test_every_mode_names_its_source_or_says_that_nobody_opened_one(name: str) -> None:
    for mode in load_runtime(name).modes:
        assert mode.source == "unverified" or "://" in mode.source or " at " in mode.source or (
            "executed graph" in mode.source or "tests/" in mode.source
        )  # fmt: skip
        if mode.source == "unverified":
            assert "recalled" in mode.note


@pytest.mark.parametrize("name", ["hexagon-x-elite", "m4-ane"])
def test_devices_that_nobody_has_figures_of_are_assumed_throughout(name: str) -> None:
    device = load_device(name)
    assert {figure.kind for figure in device.figures} == {"assumed"}
    assert not device.validated
