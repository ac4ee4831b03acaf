"""Devices with figures varied by path: the reader of device files checks them like files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hwmodels.devices.device import Device
from hwmodels.devices.figures import figures_of
from hwmodels.devices.load import device_content, device_names, load_device
from hwmodels.devices.vary import DeviceFile, Value
from hwmodels.errors import DeviceError


@pytest.mark.parametrize("name", device_names())
def test_what_the_file_says_makes_the_same_device_of_assumed_figures(name: str) -> None:
    file = DeviceFile(name)
    for path, figure in figures_of(file.device).items():
        varied = file.varied({path: file.said(path)})
        found = figures_of(varied)[path]
        assert found.value == pytest.approx(figure.value)
        assert found.kind == "assumed"
        assert found.source == f"varied from {file.said(path)} by --set"
        others = figures_of(varied)
        assert {key: one for key, one in others.items() if key != path} == {
            key: one for key, one in figures_of(file.device).items() if key != path
        }


@pytest.mark.parametrize("name", device_names())
def test_every_key_that_is_listed_can_be_set_to_what_the_file_says(name: str) -> None:
    file = DeviceFile(name)
    for key in file.keys:
        varied = file.varied({key: file.said(key)})
        known = replace(varied, title=file.device.title)
        assert [one.value for one in known.figures] == pytest.approx(
            [one.value for one in file.device.figures]
        )
        assert known.units[0].rates[0].accumulator == file.device.units[0].rates[0].accumulator


def test_a_file_with_another_capacity_gives_the_same_device(tmp_path: Path) -> None:
    _, content = device_content("edge-npu")
    content["memories"][1]["capacity"] |= {"value": 4}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    written = load_device(tmp_path / "other.yaml")
    varied = DeviceFile("edge-npu").varied({"memories.sram.capacity": "4MiB"})
    sram = replace(varied.memories[1], capacity_bytes=written.memories[1].capacity_bytes)
    same = replace(varied, title=written.title, memories=(varied.memories[0], sram))
    assert same == written


def test_the_file_stays_as_it_is() -> None:
    file = DeviceFile("edge-npu")
    first = file.varied({"memories.sram.capacity": "4 MiB", "npu.blocks.cores": 2})
    file.varied({"memories.sram.capacity": "8 MiB"})
    assert file.varied({"memories.sram.capacity": "4 MiB", "npu.blocks.cores": 2}) == first
    assert file.varied({}) == load_device("edge-npu")


def _unit(device: Device) -> list[float]:
    return [rate.ops_per_s.value for rate in device.units[0].rates]


@pytest.mark.parametrize(
    ("name", "changes", "factor"),
    [
        ("eyeriss", {"units.mac_array.array.axes.rows.size": 24}, 2.0),
        ("eyeriss", {"units.mac_array.clock": "100 MHz"}, 0.5),
        ("gemmini", {"units.mac_array.count": 4, "units.mac_array.clock": "2 GHz"}, None),
        ("h100-sxm", {"units.tensor_core.count": 66}, 0.5),
        ("edge-npu", {"npu.blocks.cores": 4}, 4.0),
        ("edge-npu", {"npu.blocks.cores": 4, "units.mac_array.clock": "500 MHz"}, 2.0),
        ("edge-npu", {"memories.sram.capacity": "8 MiB"}, 1.0),
    ],
)
def test_rates_follow_cores_clock_array_and_steps(
    name: str, changes: dict[str, Value], factor: float | None
) -> None:
    file = DeviceFile(name)
    varied, before = file.varied(changes), file.device
    if factor is None:
        clock = varied.units[0].clock_hz.value / before.units[0].clock_hz.value
        factor = 4 / before.units[0].count.value * clock
    assert _unit(varied) == pytest.approx([factor * one for one in _unit(before)])
    if factor != 1.0:
        assert {rate.ops_per_s.kind for rate in varied.units[0].rates} == {"assumed"}


def test_a_rate_that_is_varied_itself_follows_nothing() -> None:
    changes: dict[str, Value] = {
        "units.mac_array.clock": "400 MHz", "units.mac_array.rates.int16|int8": "0.13 TOP/s",
    }  # fmt: skip
    assert _unit(DeviceFile("eyeriss").varied(changes)) == pytest.approx([0.13e12])


def test_words_lists_and_numbers_of_sections_vary_with_the_source_of_their_section() -> None:
    changes: dict[str, Value] = {
        "units.mac_array.array.movement": "systolic",
        "units.mac_array.array.stationary": "weight",
        "units.mac_array.rates.int16|int8.elements": "[int8]",
        "memories.global_buffer.holds": ["input", "output", "weight"],
    }
    varied = DeviceFile("eyeriss").varied(changes)
    array = varied.units[0].array
    assert array is not None
    assert (array.movement, array.stationary) == ("systolic", "weight")
    assert varied.units[0].rates[0].weight == ("int8",)
    assert varied.memories[1].holds == ("input", "output", "weight")
    npu = DeviceFile("ethos-u55-128").varied({"npu.blocks.largest": "[16, 64, 128]"}).npu
    assert npu is not None
    assert npu.blocks.largest == (16, 64, 128)
    assert npu.blocks.kind == "assumed"
    assert "ethos_u55.cpp" in npu.blocks.source
    assert npu.blocks.source.endswith("npu.blocks.largest varied from [32, 64, 128] by --set")
    assert npu.kind == npu.output.kind == "datasheet"


def test_an_npu_s_output_unit_follows_the_array_s_clock_and_its_own_cycles() -> None:
    varied = DeviceFile("ethos-u55").varied(
        {"units.mac_array.clock": "1 GHz", "npu.output.product": 0.125}
    )
    unit = varied.unit("vector")
    assert unit.clock_hz.value == 1e9
    assert unit.rates[0].ops_per_s.value == 4 * 4e9
    with pytest.raises(
        DeviceError, match=r"units\.output_unit\.clock: 1e\+09 Hz; npu\.output says"
    ):
        DeviceFile("ethos-u55").varied({"units.output_unit.clock": "1 GHz"})


def test_a_source_behind_the_value_counts() -> None:
    varied = DeviceFile("l4").varied({"memories.dram.bandwidth": "400 GB/s @ sheet, page 2"})
    figure = varied.main_memory.bandwidth_bytes_per_s
    assert (figure.kind, figure.source) == ("datasheet", "sheet, page 2")


def test_none_takes_out_what_a_file_may_lack() -> None:
    file = DeviceFile("eyeriss")
    assert (
        file.varied({"memories.global_buffer.energy": "none"}).memories[1].energy_per_byte_j
        is None
    )
    gone = file.varied({"memories.psum_spad": "none"})
    assert [one.name for one in gone.memories] == [
        one.name for one in file.device.memories if one.name != "psum_spad"
    ]


def test_what_was_timed_on_the_chip_says_nothing_of_another_one(tmp_path: Path) -> None:
    _, content = device_content("eyeriss")
    content |= {
        "area": {"value": 12, "unit": "mm2", "kind": "assumed", "source": "a guess"},
        "corrections": [{"runtime": "free", "factor": 1.3}],
    }
    (tmp_path / "chip.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    file = DeviceFile(tmp_path / "chip.yaml")
    slower = file.varied({"memories.dram.bandwidth": "0.3 GB/s"})
    assert (slower.validation, slower.corrections) == ("", ())
    assert slower.area_mm2 == file.device.area_mm2
    assert file.varied({"memories.global_buffer.capacity": "50 KiB"}).area_mm2 is None
    larger: dict[str, Value] = {"units.mac_array.count": 2, "area": "20 mm2"}
    assert file.varied(larger).area_mm2 is not None


def test_a_runtime_beside_the_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = device_content("eyeriss")
    (tmp_path / "chips").mkdir()
    file = tmp_path / "chips" / "chip.yaml"
    file.write_text(yaml.safe_dump(content | {"runtime": "mine.yaml"}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    varied = DeviceFile("chips/chip.yaml").varied({"power.limit": "1 W"})
    assert varied.runtime == str(tmp_path / "chips" / "mine.yaml")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("memories.spad.capacity", "2 MiB", r"did you mean 'memories.psum_spad.capacity'\? mem"),
        ("memories.spad.capacity", "2 MiB", "no such entry.* memories has dram, global_buffer"),
        ("memories.dram.bandwidth", "5", "no unit; write it behind the number: '5 GB/s'"),
        ("memories.dram.bandwidth", 5, "no unit; write it behind the number: '5 GB/s'"),
        ("memories.dram.bandwidth", "2e12", "no unit; write it behind the number: '2e12 B/s'"),
        ("memories.dram.bandwidth", "5 GBs", "unknown unit 'GBs'; did you mean 'GB/s'"),
        ("memories.dram.bandwidth", "5 GHz", "expected a bandwidth .*got 5 GHz"),
        ("memories.dram.bandwidth", "5e9 GB/s", "outside the physical limits"),
        ("memories.dram.bandwidth", "1e-3 GB/s", "outside the physical limits"),
        ("memories.dram.bandwidth", "fast", "expected a number and its unit"),
        ("memories.dram.bandwidth.value", 3, "part of the figure memories.dram.bandwidth;"),
        ("memories.dram.capacity", "none", "memories.0.capacity: missing; it is required"),
        ("area", "3 mm2", "the file gives no area there"),
        ("memories.dram.write_energy", "3 pJ/B", "the file gives no write_energy there"),
        ("name", "other", "says which device this is"),
        ("sources.paper", "other", "says which device this is"),
        ("units.mac_array.array.movement", "systolick", "did you mean 'systolic'"),
        ("units.mac_array.array.movement", "systolic", "goes with `movement: systolic`"),
        ("units.mac_array.rates.int16|int8", "1 TOP/s", "contradict each other"),
        ("units.mac_array.count", 0, "expected a number and its unit"),
        ("memories.filter_spad.per", "[rows, depth]", "unknown axes depth"),
        ("memories", "{", "not YAML"),
        ("", "3", "no such entry"),
    ],
)  # fmt: skip
def test_a_wrong_variation_is_one_clear_error(key: str, value: Value, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        DeviceFile("eyeriss").varied({key: value})


def test_a_rate_into_another_accumulator_follows_the_array_all_the_same() -> None:
    file = DeviceFile("edge-array")
    rows = {"units.mac_array.array.axes.rows.size": 64}
    wide = file.varied({**rows, "units.mac_array.rates.int8.accumulator": "int24:saturate"})
    for before, after in zip(file.device.units[0].rates, wide.units[0].rates, strict=True):
        assert after.ops_per_s.value == 2 * before.ops_per_s.value


def test_registers_of_an_array_are_in_every_core_that_is_added() -> None:
    file = DeviceFile("gemmini")
    two = file.varied({"units.mac_array.count": 2})
    found = {memory.name: memory.per for memory in two.memories}
    assert found["weight_register"] == ("rows", "columns", "cores")
    assert found["scratchpad"] == ()  # the file says nothing of whose it is: one for all
    assert file.varied({"memories.dram.bandwidth": "8 GB/s"}).memories[-1].per == (
        "rows", "columns"
    )  # fmt: skip
