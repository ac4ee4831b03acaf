"""`--set` and `--sweep`: figures of a device instead of its file's, from the command line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from hwmodels.devices.device import Device, DeviceKind
from hwmodels.devices.load import device_content
from hwmodels.estimators.registry import ESTIMATORS
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost
from tests.cli.conftest import Dse
from tests.cli.test_errors import assert_refused
from tests.report.test_browser import opened

NETWORK = ("zoo:fashion-resnet", "--dim", "batch=1")
LINE = ("predict", *NETWORK, "--device", "edge-npu")
BANDWIDTH = "memories.dram.bandwidth"
CAPACITY = "memories.sram.capacity"


class _Law:
    """Bytes over the bandwidth of main memory, times the capacity of the second memory."""

    kinds: frozenset[DeviceKind] = frozenset({"npu"})

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        return tuple(self._cost(kernel, device) for kernel in kernels)

    def _cost(self, kernel: Kernel, device: Device) -> KernelCost:
        memory = device.memories[1].capacity_bytes.value
        seconds = (kernel.bytes + 1) * memory / device.main_memory.bandwidth_bytes_per_s.value
        return KernelCost(latency_s=seconds, low_s=seconds, high_s=2 * seconds, energy_j=1.0,
                          traffic_bytes=1.0, bound="memory")  # fmt: skip


def _rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "npu", _Law())


@pytest.mark.usefixtures("law")
def test_a_sweep_is_the_product_of_its_values_and_follows_the_law(dse: Dse) -> None:
    rows = json.loads(dse(
        *LINE, "--sweep", f"{BANDWIDTH}=10GB/s,20 GB/s", "--sweep", f"{CAPACITY}=1MiB,4MiB",
        "--json",
    ).out)  # fmt: skip
    assert [(row[BANDWIDTH], row[CAPACITY]) for row in rows] == [
        ("10GB/s", "1MiB"), ("10GB/s", "4MiB"), ("20 GB/s", "1MiB"), ("20 GB/s", "4MiB"),
    ]  # fmt: skip
    times = [row["latency_s"] for row in rows]
    assert [time / times[0] for time in times] == pytest.approx([1, 4, 0.5, 2])
    assert all(row["high_s"] == pytest.approx(2 * row["low_s"]) for row in rows)


@pytest.mark.usefixtures("law")
def test_what_is_set_holds_for_the_whole_sweep(dse: Dse) -> None:
    plain, doubled = (
        json.loads(dse(*LINE, *extra, "--sweep", f"{BANDWIDTH}=10GB/s,20GB/s", "--json").out)
        for extra in ((), ("--set", f"{CAPACITY}=4MiB"))
    )
    assert [row["latency_s"] for row in doubled] == pytest.approx(
        [2 * row["latency_s"] for row in plain]
    )


def test_setting_a_figure_is_a_file_with_that_figure(dse: Dse, tmp_path: Path) -> None:
    _, content = device_content("edge-npu")
    content["memories"][0]["bandwidth"] |= {"value": 5}
    (tmp_path / "chip.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    changed = json.loads(
        dse("predict", *NETWORK, "--device", tmp_path / "chip.yaml", "--json").out
    )
    told = json.loads(dse(*LINE, "--set", f"{BANDWIDTH}=5GB/s", "--json").out)
    assert told[0]["latency_s"] == changed[0]["latency_s"]
    assert told[0]["energy_j"] == changed[0]["energy_j"]


def test_people_read_a_row_a_value_and_what_the_file_has(dse: Dse) -> None:
    out = dse(*LINE, "--sweep", f"{BANDWIDTH}=4GB/s,17GB/s").out
    assert re.search(r"^memories\.dram\.bandwidth +latency", out, re.MULTILINE)
    assert re.search(r"^4GB/s +\d", out, re.MULTILINE)
    assert "edge-npu's file has memories.dram.bandwidth=17 GB/s" in out
    assert re.search(r"fastest with memories\.dram\.bandwidth=17GB/s", out)


def test_the_table_and_the_page_are_written(dse: Dse, tmp_path: Path) -> None:
    table, page = tmp_path / "sweep.csv", tmp_path / "sweep.html"
    dse(*LINE, "--sweep", f"{BANDWIDTH}=4GB/s,17GB/s", "-o", table, "--plot", page, "--format",
        "bf16", "--format", "w8a8_int8_static")  # fmt: skip
    rows = _rows(table)
    assert [(row[BANDWIDTH], row["format"]) for row in rows] == [
        ("4GB/s", "bf16"), ("4GB/s", "w8a8_int8_static"),
        ("17GB/s", "bf16"), ("17GB/s", "w8a8_int8_static"),
    ]  # fmt: skip
    assert {"latency_s", "low_s", "high_s", "energy_j", "area_mm2", "bound"} <= rows[0].keys()
    text = page.read_text(encoding="utf-8")
    assert "zoo:fashion-resnet over memories.dram.bandwidth" in text
    assert "https://" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


@pytest.mark.browser
def test_the_page_draws_a_line_a_format_in_a_browser(dse: Dse, tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    dse(*LINE, "--sweep", f"{BANDWIDTH}=4GB/s,17GB/s,34GB/s", "--plot", page, "--format", "bf16",
        "--format", "w8a8_int8_static")  # fmt: skip
    elements, console = opened(page, tmp_path / "profile")
    assert console == []
    assert len(re.findall(r'class="point"', elements)) == 6
    assert "file of edge-npu" in elements


def test_words_and_lists_are_swept_too(dse: Dse) -> None:
    key = "memories.global_buffer.double_buffered"
    rows = json.loads(
        dse("predict", *NETWORK, "--device", "eyeriss", "--sweep", f"{key}=false,[input],true",
            "--json").out
    )  # fmt: skip
    assert [row[key] for row in rows] == ["false", "[input]", "true"]


def test_operators_are_predicted_for_every_value(dse: Dse, tmp_path: Path) -> None:
    ops = tmp_path / "ops.csv"
    ops.write_text('op,shape,dtype\ngemm,"{""M"": 8, ""K"": 4096, ""N"": 4096}",bf16\n')
    out = tmp_path / "pred.csv"
    shown = dse("predict-ops", ops, "--device", "l4", "--sweep", f"{BANDWIDTH}=200GB/s,300GB/s",
                "-o", out, "--json")  # fmt: skip
    rows = _rows(out)
    assert [row[BANDWIDTH] for row in rows] == ["200GB/s", "300GB/s"]
    assert float(rows[0]["predicted_us"]) > float(rows[1]["predicted_us"])
    assert len(json.loads(shown.out)) == 2
    dse("predict-ops", ops, "--device", "l4", "--set", f"{BANDWIDTH}=200GB/s", "-o", out)
    alone = _rows(out)
    assert alone[0]["predicted_us"] == rows[0]["predicted_us"]


def test_a_format_that_is_taken_out_of_a_unit_is_not_legal_there(dse: Dse) -> None:
    line = ("legal", *NETWORK, "--device", "l4:free", "--json")
    before, after = (
        {row["format"]: row["status"] for row in json.loads(dse(*line, *extra).out)}
        for extra in ((), ("--set", "units.tensor_core.rates.int8=none"))
    )
    assert before["w8a8_int8_static"] == "native"
    assert after["w8a8_int8_static"] == "upcast"
    assert after["w8a8_fp8"] == "native"


def test_legality_is_swept_value_by_value(dse: Dse) -> None:
    key = "units.tensor_core.rates.int8.elements"
    rows = json.loads(
        dse(
            "legal", *NETWORK, "--device", "l4:free", "--json", "--sweep", f"{key}=[int8],[int16]"
        ).out
    )
    assert {row[key]: row["status"] for row in rows if row["format"] == "w8a8_int8_static"} == {
        "[int8]": "native",
        "[int16]": "upcast",
    }


def test_a_search_prices_the_varied_device_and_says_so(dse: Dse, tmp_path: Path) -> None:
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    out = dse("search", NETWORK[0], "--data", NETWORK[0], "--target", "edge-npu:free", "--trials",
              2, "--set", f"{BANDWIDTH}=0.5GB/s", "--out", slow).out  # fmt: skip
    assert "edge-npu is varied: memories.dram.bandwidth=0.5GB/s" in " ".join(out.split())
    dse("search", "--from", slow, "--set", f"{BANDWIDTH}=17GB/s", "--out", fast)
    before, after = (
        {row["digest"]: float(row["latency_s"]) for row in _rows(run / "trials.csv")}
        for run in (slow, fast)
    )
    assert before.keys() == after.keys()
    assert all(after[key] < before[key] for key in before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "memories.ram.capacity=2MiB"), "did you mean 'memories.sram.capacity'"),
        (("--sweep", "memories.ram.capacity=2MiB"), "memories has dram, sram"),
        (("--set", f"{CAPACITY}=2"), "no unit; write it behind the number: '2 MiB'"),
        (("--set", f"{CAPACITY}=2GHz"), "expected a capacity"),
        (("--sweep", f"{CAPACITY}=2MiB,2GHz"), "expected a capacity"),
        (("--set", f"{CAPACITY}=2e9MiB"), "outside the physical limits"),
        (("--set", f"{CAPACITY}"), "expected KEY=VALUE"),
        (("--set", f"{CAPACITY}=2MiB", "--set", f"{CAPACITY}=4MiB"), "given twice"),
        (("--set", f"{CAPACITY}=2MiB", "--sweep", f"{CAPACITY}=4MiB"), "keep one"),
        (("--sweep", f"{CAPACITY}="), "no values; expected KEY=a,b,c"),
        (("--sweep", f"{CAPACITY}=,"), "no values; expected KEY=a,b,c"),
        (("--sweep", "area=1mm2,2mm2"), "the file gives no area there"),
        (("--device", "l4", "--set", f"{CAPACITY}=2MiB"), "edge-npu has it, l4 has not"),
        (("--sweep", f"{CAPACITY}=2MiB", "--regions"), "leave out --regions"),
        (("--sweep", f"{CAPACITY}=2MiB", "-o", "x.yaml"), "expected a name in .csv"),
        (("--plot", "x.html"), "--sweep"),
    ],
)
def test_a_wrong_variation_is_one_clear_error(
    dse: Dse, arguments: tuple[str, ...], words: str
) -> None:
    assert_refused(dse(*LINE, *arguments), words)
