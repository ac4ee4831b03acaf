from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from hwmodels.devices.device import Device
from hwmodels.devices.load import (
    DEVICES,
    device_names,
    load_device,
)
from hwmodels.errors import DeviceError


def _written(folder: Path, **changes: object) -> Path:
    """The H100's file with some top-level entries replaced."""
    content = yaml.safe_load((DEVICES.folder / "h100-sxm.yaml").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    return path


def _memories(**dram: object) -> list[dict[str, object]]:
    figure = {"kind": "datasheet", "source": "page 3"}
    return [
        {
            "name": "dram",
            "capacity": {"value": 80, "unit": "GB", **figure},
            "bandwidth": {"value": 3350, "unit": "GB/s", **figure, **dram},
        }
    ]


@pytest.mark.parametrize("name", device_names())
def test_every_figure_of_a_shipped_device_has_a_source(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert all(figure.source for figure in device.figures)
    assert len(device.figures) >= 15


def test_peak_of_the_h100_is_cores_times_clock_times_width() -> None:
    """132 SMs x 4096 bf16 FLOP a cycle x 1.83 GHz = 989.4 TFLOP/s."""
    device = load_device("h100-sxm")
    rate = device.rate("bf16", "bf16")
    assert rate is not None
    assert rate.ops_per_s.value == pytest.approx(132 * 4096 * 1.83e9, rel=1e-3)


def test_a_rate_belongs_to_its_accumulator() -> None:
    """GeForce parts halve FP16 and FP8 when they accumulate in FP32."""
    device = load_device("rtx-4090")
    slow, fast = device.rate("e4m3", "e4m3", "fp32"), device.rate("e4m3", "e4m3", "fp16")
    assert slow is not None
    assert fast is not None
    assert fast.ops_per_s.value == pytest.approx(2 * slow.ops_per_s.value, rel=0.01)


def test_fp6_runs_at_fp8_rate_on_nvidia_and_at_fp4_rate_on_amd() -> None:
    for name, twin in (("b200-sxm", "e4m3"), ("mi355x", "e2m1")):
        device = load_device(name)
        rates = [device.rate(element, element) for element in ("e2m3", twin)]
        assert rates[0] is not None
        assert rates[1] is not None
        assert rates[0].ops_per_s.value == rates[1].ops_per_s.value


def test_widening_is_exact_and_nearest() -> None:
    h100 = load_device("h100-sxm")
    assert h100.rate("int4", "int4") is None
    assert h100.widened("int4", "int4") == ("int8", "int8")
    assert h100.widened("e2m1", "e2m1") == ("e4m3", "e4m3")
    assert h100.widened("int4", "bf16") == ("bf16", "bf16")
    assert h100.widened("int8", "e4m3") == ("fp16", "fp16")


def test_a_path_works_like_a_name(tmp_path: Path) -> None:
    assert load_device(_written(tmp_path, name="mine")).name == "mine"


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(DeviceError, match="unknown device 'h100-smx'; did you mean 'h100-sxm'"):
        load_device("h100-smx")


def test_a_missing_file_is_one_message() -> None:
    with pytest.raises(DeviceError, match=r"nowhere/x\.yaml: no such device file"):
        load_device("nowhere/x.yaml")


def test_text_that_is_not_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\nunits: [1, 2\nyear: 3\n", encoding="utf-8")
    with pytest.raises(DeviceError, match=r"broken\.yaml: line \d+, column \d+: not YAML"):
        load_device(path)


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    path = _written(tmp_path, yaer=2022, kind="gpuu", memories=_memories(unit="GBs"))
    with pytest.raises(DeviceError) as raised:
        load_device(path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    assert all("mine.yaml: " in line for line in lines)
    assert any("yaer: unknown key; did you mean 'year'?" in line for line in lines)
    assert any(
        "memories.0.bandwidth.unit: unknown unit 'GBs'; did you mean 'GB/s'?" in x for x in lines
    )


@pytest.mark.parametrize(
    ("dram", "message"),
    [
        ({"value": 3350, "unit": "TB/s"}, "outside the physical limits"),
        ({"value": 3350, "unit": "MB/s"}, "operations a byte"),
        ({"value": 3350, "unit": "GB"}, "expected a bandwidth"),
        ({"value": -1}, "greater than 0"),
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
    ],
)
def test_an_absurd_bandwidth_is_refused(
    tmp_path: Path, dram: dict[str, object], message: str
) -> None:
    with pytest.raises(DeviceError, match=message) as raised:
        load_device(_written(tmp_path, memories=_memories(**dram)))
    assert "memories.0.bandwidth" in str(raised.value)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("name", ["h100-sxm", "b200-sxm", "l4", "v100-sxm2", "mi300x"])
def test_every_bandwidth_and_peak_off_by_1000_is_refused(
    tmp_path: Path, name: str, factor: float
) -> None:
    text = (DEVICES.folder / f"{name}.yaml").read_text(encoding="utf-8")
    wrong = yaml.safe_load(text)
    wrong["memories"][0]["bandwidth"]["value"] *= factor
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    with pytest.raises(DeviceError, match="bandwidth"):
        load_device(path)
    wrong = yaml.safe_load(text)
    wrong["units"][0]["rates"][0]["value"] *= factor
    path.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"units\.0\.rates\.0|operations a"):
        load_device(path)


def _changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """TPU v1 with a change, in a file."""
    content = yaml.safe_load((DEVICES.folder / "tpu-v1.yaml").read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _wider(content: dict[str, Any]) -> None:
    content["units"][0]["array"]["axes"][1]["size"]["value"] *= 2


def _without_array(content: dict[str, Any]) -> None:
    del content["units"][0]["array"]


def _moves_without_a_tensor(content: dict[str, Any]) -> None:
    del content["units"][0]["array"]["stationary"]


def _three_axes(content: dict[str, Any]) -> None:
    axes = content["units"][0]["array"]["axes"]
    axes.append(axes[0] | {"name": "planes"})


def _on_an_axis_that_is_not_there(content: dict[str, Any]) -> None:
    content["memories"][-1]["per"] = ["rows", "lanes"]


def _a_tensor_without_a_home(content: dict[str, Any]) -> None:
    content["memories"][0]["holds"] = ["input", "weight"]


def _a_word_wider_than_its_memory(content: dict[str, Any]) -> None:
    content["memories"][-1]["word"] = content["memories"][0]["capacity"]


def _main_memory_that_streams(content: dict[str, Any]) -> None:
    content["memories"][0]["streamed"] = ["input"]


def _main_memory_of_two_ports(content: dict[str, Any]) -> None:
    content["memories"][0]["write_bandwidth"] = content["memories"][0]["bandwidth"]


def _main_memory_that_waits(content: dict[str, Any]) -> None:
    content["memories"][0]["waits_for_room"] = True


def _room_that_is_always_there(content: dict[str, Any]) -> None:
    content["memories"][1]["waits_for_room"] = True


def _room_for_whole_tiles(content: dict[str, Any]) -> None:
    content["memories"][1] |= {"double_buffered": False, "waits_for_room": True}


def _codes_on_chip(content: dict[str, Any]) -> None:
    content["memories"][1]["run_lengths"] = {"run_bits": 5, "elements": 3, "word_bits": 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_main_memory_that_streams, r"memories\.0\.streamed: .* none is behind dram"),
        (_main_memory_that_waits, r"memories\.0\.waits_for_room: .* none is behind dram"),
        (_main_memory_of_two_ports, r"memories\.0\.write_bandwidth: .* share the port of dram"),
        (_room_that_is_always_there, r"memories\.1\.waits_for_room: .* say `double_buffered: fal"),
        (_room_for_whole_tiles, r"memories\.1\.waits_for_room: .* is not `streamed` in"),
        (_codes_on_chip, r"memories\.1\.run_lengths: only main memory"),
        (_wider, r"units\.0\.array and units\.0\.rates contradict each other: 256 x 512 multip"),
        (_without_array, r"units\.0\.array: missing; the matrix unit of a spatial array needs"),
        (_moves_without_a_tensor, r"`stationary` \(input, weight or output\) goes with"),
        (_three_axes, r"a systolic array has two axes, rows first; got 3"),
        (_on_an_axis_that_is_not_there, r"memories\.4\.per: unknown axes lanes; the array has"),
        (_a_word_wider_than_its_memory, r"memories\.4\.word: 8\S* B is more than"),
        (_a_tensor_without_a_home, r"memories\.0\.holds: output missing: every tensor has a"),
    ],
)
def test_an_array_that_contradicts_itself_names_its_fields(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        load_device(_changed(tmp_path, change))


def test_a_figure_that_is_not_between_its_own_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"memories\.0\.bandwidth: value 3350 is not between low"
    ):
        load_device(_written(tmp_path, memories=_memories(low=3500, high=4000)))


def test_a_source_is_a_key_or_the_citation_itself(tmp_path: Path) -> None:
    named = {"name": "mine", "memories": _memories()}
    (dram, *_) = load_device(_written(tmp_path, **named)).memories
    assert dram.bandwidth_bytes_per_s.source == "page 3"
    assert load_device("h100-sxm").main_memory.bandwidth_bytes_per_s.source.startswith("NVIDIA")
    with pytest.raises(DeviceError, match=r"memories\.0\.bandwidth: source: expected a citation"):
        load_device(_written(tmp_path, memories=_memories(source=" ")))


def test_a_rate_has_elements_or_both_operands(tmp_path: Path) -> None:
    content = yaml.safe_load((DEVICES.folder / "l4.yaml").read_text(encoding="utf-8"))
    content["units"][0]["rates"][0]["weight"] = ["int4"]
    content["units"][0]["rates"][0]["input"] = ["int8"]
    path = tmp_path / "l4.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"units\.0\.rates\.0: expected either `elements` or"):
        load_device(path)


def test_the_schema_of_a_device_file_describes_the_shipped_ones() -> None:
    schema = TypeAdapter(Device).json_schema()
    for name in device_names():
        path = DEVICES.path(name)
        assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(schema["properties"])


def test_a_device_file_names_its_runtime_relative_to_itself(tmp_path: Path) -> None:
    assert load_device("ethos-u55").default_runtime == "vela"
    assert load_device("h100-sxm").default_runtime == "torch-eager"
    assert load_device(_written(tmp_path, runtime="vllm")).default_runtime == "vllm"
    own = load_device(_written(tmp_path, runtime="own.yaml"))
    assert own.default_runtime == str(tmp_path / "own.yaml")


def test_a_missing_figure_names_its_field(tmp_path: Path) -> None:
    content = yaml.safe_load((DEVICES.folder / "l4.yaml").read_text(encoding="utf-8"))
    del content["power"]["limit"]
    path = tmp_path / "l4.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"l4\.yaml: power\.limit: missing"):
        load_device(path)


def test_a_flag_is_no_figure(tmp_path: Path) -> None:
    content = yaml.safe_load((DEVICES.folder / "l4.yaml").read_text(encoding="utf-8"))
    content["power"]["limit"]["value"] = True
    path = tmp_path / "l4.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"power\.limit\.value: expected a number, got true"):
        load_device(path)


def test_a_sparse_rate_is_an_unknown_key(tmp_path: Path) -> None:
    """Rates are dense; one of sparse weights would be twice as high and hold for few kernels."""
    content = yaml.safe_load((DEVICES.folder / "h100-sxm.yaml").read_text(encoding="utf-8"))
    units = content["units"]
    units[0]["rates"][0]["sparse"] = 3958
    with pytest.raises(DeviceError, match="sparse: unknown key"):
        load_device(_written(tmp_path, units=units))
