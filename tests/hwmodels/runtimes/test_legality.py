from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hwmodels.devices.device import Device
from hwmodels.devices.load import DEVICES, device_names, load_device
from hwmodels.errors import RuntimeModeError
from hwmodels.formats import catalog
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes import legality
from hwmodels.runtimes.execution import execution
from hwmodels.runtimes.legality import find_mode, who_has_it
from hwmodels.runtimes.load import RUNTIMES, load_runtime, runtime_names
from hwmodels.work.work import Op, Operand, OperandName

SIZES = {"M": 64, "K": 4096, "N": 4096}


def _operands(scheme: str) -> dict[OperandName, Quantizer]:
    entry = catalog.SCHEMES[scheme]
    found: dict[OperandName, Quantizer] = {}
    if entry.weight:
        found["weight"] = entry.weight
    if entry.input:
        found["input"] = entry.input
    return found


def _mode(scheme: str, device: str, runtime: str) -> str | None:
    verdict = find_mode(
        "gemm", _operands(scheme), SIZES, load_device(device), load_runtime(runtime)
    )
    return verdict.mode.name if verdict.mode else None


@pytest.mark.parametrize(
    ("scheme", "device", "runtime", "mode"),
    [
        ("w8a8_fp8", "h100-sxm", "vllm", "fp8_w8a8"),
        ("w8a8_fp8", "a100-sxm-80gb", "vllm", None),
        ("w8a8_int8", "h100-sxm", "vllm", "int8_w8a8"),
        ("w8a8_int8", "b300-sxm", "vllm", None),
        ("w4a4_nvfp4", "b200-sxm", "vllm", "nvfp4_w4a4"),
        ("w4a4_nvfp4", "rtx-pro-6000", "tensorrt-llm", "nvfp4"),
        ("w4a4_nvfp4", "h100-sxm", "vllm", None),
        ("w4a4_mxfp4", "mi355x", "vllm", "mxfp4_w4a4"),
        ("w4a4_mxfp4", "mi300x", "vllm", None),
        ("w4a16", "h100-sxm", "vllm", "int4_marlin"),
        ("w4a16", "v100-sxm2", "vllm", None),
        ("w8a16", "a100-sxm-80gb", "tensorrt-llm", "int8_weight_only"),
        ("w8a8_fp8_dynamic", "l40s", "tensorrt-llm", None),
        ("w8a8_int8_static", "cpu-avx2", "onnxruntime-cpu", "qlinear"),
        ("w8a8_int8", "cpu-avx2", "onnxruntime-cpu", None),  # a scale a row: there is no such
        ("w8a8_int8_static", "cpu-avx2", "onnxruntime", None),
    ],
)
def test_kernels_exist_where_they_do(
    scheme: str, device: str, runtime: str, mode: str | None
) -> None:
    assert _mode(scheme, device, runtime) == mode


def test_hopper_multiplies_no_int4() -> None:
    assert load_device("h100-sxm").rate("int4", "int4") is None
    assert load_device("a100-sxm-80gb").rate("int4", "int4") is not None


def test_the_reason_names_architecture_and_requirement() -> None:
    verdict = find_mode(
        "gemm", _operands("w4a4_nvfp4"), SIZES, load_device("h100-sxm"), load_runtime("vllm")
    )
    assert verdict.reason == "nvfp4_w4a4 of vllm needs sm_100 and later; h100-sxm is sm_90"


def test_the_reason_names_sizes_that_do_not_divide() -> None:
    verdict = find_mode(
        "gemm",
        _operands("w4a16"),
        {"M": 64, "K": 4000, "N": 4096},
        load_device("h100-sxm"),
        load_runtime("vllm"),
    )
    assert verdict.mode is None
    assert verdict.reason == "int4_marlin: K=4000 is no multiple of 128"


def test_formats_are_matched_by_layout_not_by_name() -> None:
    renamed = replace(catalog.format("nvfp4"), name="my_fp4")
    mine = Quantizer(format=renamed)
    verdict = find_mode(
        "gemm",
        {"weight": mine, "input": mine},
        SIZES,
        load_device("b200-sxm"),
        load_runtime("vllm"),
    )
    assert verdict.mode is not None
    assert verdict.mode.name == "nvfp4_w4a4"


def test_a_device_of_ones_own_runs_natively_with_no_runtime_that_does_not_exist_for_it(
    tmp_path: Path,
) -> None:
    """A kernel without architecture ranges exists wherever its runtime does, not everywhere."""
    content = yaml.safe_load(DEVICES.path("gemmini").read_text(encoding="utf-8"))
    rate = content["units"][0]["rates"][0]
    content["units"][0]["rates"].append({**rate, "elements": ["bf16"]})
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**content, "name": "mine"}), encoding="utf-8")
    mine = load_device(path)
    assert who_has_it("gemm", (), tuple(SIZES.items()), mine, "vela") == (
        "no shipped runtime runs it natively"
    )
    verdict = find_mode("gemm", {}, SIZES, mine, load_runtime("llama-cpp"))
    assert verdict.reason == "llama-cpp runs on sm, cdna, xe, apple, x86; mine is array1"
    assert mine.default_runtime == "free"


def test_no_other_device_is_opened_until_a_note_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def spied(name: str) -> Device:
        opened.append(name)
        return load_device(name)

    monkeypatch.setattr(legality, "load_device", spied)
    who_has_it.cache_clear()
    operands = tuple(
        Operand(name=name, value=name, shape=(4096, 4096), quantizer=quantizer)
        for name, quantizer in _operands("w4a4_nvfp4").items()
    )
    op = Op(name="fc", kind="gemm", sizes=SIZES, operands=operands)
    found = execution(op, load_device("h100-sxm"), load_runtime("tensorrt-llm"))
    assert found.note
    assert opened == []
    assert "tensorrt-llm runs it natively on b200-sxm" in str(found.note)
    assert set(opened) == set(device_names())


@pytest.mark.parametrize(
    ("element", "device", "compute", "said"),
    [
        ("bf16", "t4", "fp16", "t4 has no unit for bf16: runs in fp16, which ends at 65504"),
        ("bf16", "v100-sxm2", "fp16", "v100-sxm2 has no unit for bf16: runs in fp16"),
        ("fp16", "t4", "fp16", ""),
        ("bf16", "h100-sxm", "bf16", ""),
    ],
)
def test_another_float_than_the_one_asked_for_is_said(
    element: str, device: str, compute: str, said: str
) -> None:
    asked = catalog.quantizer(element)
    names: tuple[OperandName, ...] = ("input", "weight")
    operands = tuple(Operand(name=n, value=n, shape=(64, 64), quantizer=asked) for n in names)
    op = Op(name="fc", kind="gemm", sizes=SIZES, operands=operands)
    found = execution(op, load_device(device), load_runtime("vllm"))
    assert found.compute == (compute, compute)
    assert str(found.note).startswith(said)
    assert bool(found.note) == bool(said)


@pytest.mark.parametrize("runtime", ["torch-eager", "torch-compile", "onnxruntime"])
def test_attention_in_fp32_needs_no_format_of_the_probabilities_inside(runtime: str) -> None:
    fp32 = catalog.quantizer("fp32")
    asked: dict[OperandName, Quantizer] = {"q": fp32, "k": fp32, "v": fp32}
    verdict = find_mode("attention", asked, {}, load_device("h100-sxm"), load_runtime(runtime))
    assert verdict.mode is not None
    assert verdict.mode.compute == ("fp32", "fp32")


def test_fp32_without_a_kernel_is_said_to_run_in_16_bits() -> None:
    asked = catalog.quantizer("fp32")
    names: tuple[OperandName, ...] = ("input", "weight")
    operands = tuple(Operand(name=n, value=n, shape=(64, 64), quantizer=asked) for n in names)
    op = Op(name="fc", kind="gemm", sizes=SIZES, operands=operands)
    found = execution(op, load_device("h100-sxm"), load_runtime("vllm"))
    assert {operand.format.name for operand in found.op.operands if operand.format} == {"bf16"}
    assert str(found.note).startswith("vllm has no gemm kernel for input fp32 with weight fp32;")
    assert str(found.note).endswith(
        "What is asked for in fp32 runs in bf16, which is not what an emulation in fp32 measures"
    )


def test_a_weight_only_kernel_is_said_to_compute_in_the_float_that_it_has_there() -> None:
    weight, input_ = catalog.quantizer("e4m3_channel"), catalog.quantizer("fp16")
    operands = (
        Operand(name="weight", value="w", shape=(4096, 4096), quantizer=weight),
        Operand(name="input", value="x", shape=(64, 4096), quantizer=input_),
    )
    op = Op(name="fc", kind="gemm", sizes=SIZES, operands=operands)
    found = execution(op, load_device("t4"), load_runtime("vllm"))
    assert found.note == "fp8_marlin computes in fp16"


@pytest.mark.parametrize("name", runtime_names())
def test_modes_use_known_elements_and_exist_on_some_device(name: str) -> None:
    devices = [load_device(device) for device in device_names()]
    for mode in load_runtime(name).modes:
        elements = {e for layout in mode.operands.values() for e in layout.elements}
        assert elements <= {*ENCODINGS, "decoded"}, mode.name
        assert mode.source
        assert any(
            mode.runs_on(device.architecture) and device.rate(*mode.compute) for device in devices
        ), mode.name


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(RuntimeModeError, match="unknown runtime 'vlm'; did you mean 'vllm'"):
        load_runtime("vlm")


def test_a_mode_for_a_family_that_the_runtime_lacks_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(RUNTIMES.path("vllm").read_text(encoding="utf-8"))
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**content, "families": ["sm"]}), encoding="utf-8")
    with pytest.raises(RuntimeModeError, match="mode fp8_w8a8 is for cdna, which `families` lack"):
        load_runtime(path)


def test_two_modes_of_one_name_are_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(RUNTIMES.path("vela").read_text(encoding="utf-8"))
    content["modes"].append(content["modes"][0])
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(RuntimeModeError, match="modes: two modes are named int8"):
        load_runtime(path)


def test_a_wrong_runtime_file_lists_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\ntitle: t\nversion: '1'\nplacement: nowhere\nsource: s\n"
        "modes:\n  - {name: m, ops: [gem], operands: {weight: {element: []}}, compute: [a, b],"
        " accumulator: fp32, source: s, algn: {K: 3}}\n",
        encoding="utf-8",
    )
    with pytest.raises(RuntimeModeError) as raised:
        load_runtime(path)
    text = str(raised.value)
    assert "placement" in text
    assert "modes.0.ops.0" in text
    assert "modes.0.operands.weight.element" in text
    assert "modes.0.algn: unknown key; did you mean 'align'?" in text
