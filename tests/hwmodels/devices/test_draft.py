"""Files drafted from a datasheet: what is given is kept, what is not follows by its rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwmodels.devices.device import Device
from hwmodels.devices.draft import Draft, nearest_device
from hwmodels.devices.figures import figures_of
from hwmodels.devices.load import device_names, load_device
from hwmodels.errors import DeviceError


def _written(draft: Draft, folder: Path) -> Device:
    path = folder / "mine.yaml"
    path.write_text(draft.text(str(path)), encoding="utf-8")
    return load_device(path)


def _draft(like: str, **settings: str) -> Draft:
    draft = Draft(like)
    draft.set("name", "mine")
    for key, text in settings.items():
        draft.set(key.replace("__", "."), text)
    return draft


@pytest.mark.parametrize("like", device_names())
def test_a_device_like_any_other_is_that_device_with_everything_assumed(
    like: str, tmp_path: Path
) -> None:
    known, device = figures_of(load_device(like)), figures_of(_written(_draft(like), tmp_path))
    assert device.keys() == known.keys() - {"price_usd_per_h", "area_mm2"}
    for path, figure in device.items():
        assert figure.value == pytest.approx(known[path].value, rel=1e-5)
        assert figure.kind == "assumed"
        assert like in figure.source


def test_what_is_given_keeps_value_unit_and_source(tmp_path: Path) -> None:
    device = _written(
        _draft(
            "l40s", memory__bandwidth="1.2 TB/s @ sheet, page 2", cores="160 @ sheet",
            bf16="400 TFLOP/s", idle="30 W @ measured with nvidia-smi", price="2 USD/h @ list",
        ),
        tmp_path,
    )  # fmt: skip
    found = figures_of(device)
    bandwidth = found["memories.dram.bandwidth_bytes_per_s"]
    assert (bandwidth.value, bandwidth.unit, bandwidth.kind) == (1.2e12, "TB/s", "datasheet")
    assert bandwidth.source == "sheet, page 2"
    assert found["units.tensor_core.count"].value == found["units.cuda_core.count"].value == 160
    assert found["units.tensor_core.rates.bf16|fp16.ops_per_s"].kind == "assumed"
    assert found["power.idle_w"].kind == "measured"
    assert device.price_usd_per_h is not None
    assert device.price_usd_per_h.value == 2
    assert (device.title, device.vendor, device.measurements) == ("mine", "nvidia", ())


def test_the_rest_follows_by_rules_of_a_family(tmp_path: Path) -> None:
    """Twice the cores at 3/4 of the clock and twice the limit: 3/2 of what counts core cycles."""
    known = load_device("l40s")
    clock = known.unit("matrix").clock_hz.value
    device = _written(
        _draft(
            "l40s", cores=str(2 * known.unit("matrix").count.value),
            clock=f"{0.75 * clock} Hz", limit=f"{2 * known.power.limit_w.value} W",
        ),
        tmp_path,
    )  # fmt: skip
    factors = {
        "units.tensor_core.rates.bf16|fp16.ops_per_s": 1.5,
        "units.cuda_core.rates.fp32.ops_per_s": 1.5,
        "memories.l2.bandwidth_bytes_per_s": 1.5,
        "memories.smem.bandwidth_bytes_per_s": 1.5,
        "memories.dram.bandwidth_bytes_per_s": 1.0,
        "memories.l2.capacity_bytes": 1.0,
        "power.idle_w": 2.0,
        "power.per_op.bf16|fp16.energy_per_op_j": 2 / 1.5,
        "launch_s": 1.0,
    }
    before, after = figures_of(known), figures_of(device)
    for path, factor in factors.items():
        assert after[path].value == pytest.approx(factor * before[path].value, rel=1e-4), path
        assert after[path].kind == "assumed"


def test_a_rate_that_is_given_scales_the_others_of_its_unit(tmp_path: Path) -> None:
    before = figures_of(load_device("l40s"))
    bf16 = before["units.tensor_core.rates.bf16|fp16.ops_per_s"].value
    device = _written(_draft("l40s", bf16=f"{3 * bf16 / 1e12} TFLOP/s", cores="142"), tmp_path)
    after = figures_of(device)
    for path in ("units.tensor_core.rates.e4m3|e5m2.ops_per_s",
                 "units.tensor_core.rates.tf32.ops_per_s"):  # fmt: skip
        assert after[path].value == pytest.approx(3 * before[path].value, rel=1e-4)
    assert after["units.cuda_core.rates.fp32.ops_per_s"].value == pytest.approx(
        before["units.cuda_core.rates.fp32.ops_per_s"].value
    )


def test_rates_come_and_go(tmp_path: Path) -> None:
    draft = _draft("h100-sxm", fp4="2000 TFLOP/s @ sheet", int8="none", nvlink__bandwidth="none")
    device = _written(draft, tmp_path)
    assert device.rate("e2m1", "e2m1") is not None
    assert device.rate("int8", "int8") is None
    assert device.rate("e4m3", "e4m3") is not None
    assert device.links == ()


def test_paths_are_taken_as_the_file_has_them_and_as_they_are_printed(tmp_path: Path) -> None:
    for path in figures_of(load_device("rtx-4090")):
        if path != "price_usd_per_h":
            assert len(Draft("rtx-4090").paths(path)) == 1, path
    draft = _draft("l4")
    draft.set("memories.l2.bandwidth_bytes_per_s", "2 TB/s @ a")
    draft.set("memories.l2.capacity", "64 MiB @ b")
    draft.set("units.tensor_core.clock_hz", "2 GHz @ c")
    device = _written(draft, tmp_path)
    cache = device.memory("l2")
    assert cache is not None
    assert (cache.bandwidth_bytes_per_s.value, cache.capacity_bytes.value) == (2e12, 64 * 2**20)
    assert device.unit("matrix").clock_hz.value == 2e9
    assert device.unit("vector").clock_hz.value == 2.04e9


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"kind": "gpu", "family": "sm", "version": 8.9}, "l40s"),
        ({"kind": "gpu", "family": "sm", "version": 8.0}, "a100-sxm-80gb"),
        ({"kind": "gpu", "family": "sm", "version": 10.0}, "b200-sxm"),
        ({"family": "cdna", "version": 4.5}, "mi355x"),
        ({"kind": "cpu", "family": "x86", "version": 4}, "zen4-2c"),
    ],
)
def test_the_nearest_device_is_of_the_nearest_version_and_validated(
    asked: dict[str, object], name: str
) -> None:
    assert nearest_device(**asked) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "text", "parts"),
    [
        ("bf16", "400", ["no unit", "'400 TFLOP/s'"]),
        ("bf16", "400 TB/s", ["expected a rate", "got TB/s"]),
        ("bf16", "400 TFLPO/s", ["unknown unit 'TFLPO/s'", "did you mean 'TFLOP/s'"]),
        ("bf16", "-4 TFLOP/s", ["expected a number"]),
        ("bf16", "nan TFLOP/s", ["expected a number"]),
        ("bf15", "4 TFLOP/s", ["no such figure", "memory.bandwidth"]),
        ("memory.bandwith", "4 TB/s", ["did you mean 'memory.bandwidth'"]),
        ("price", "2 EUR/h", ["unknown unit 'EUR/h'"]),
        ("year", "soon", ["expected a year"]),
        ("architecture", "sm9", ["such as 'sm 9.0'"]),
        ("name", "My Chip", ["expected small letters"]),
        ("name", "h100-sxm", ["is a known device", "choose another name"]),
    ],
)
def test_wrong_answers_are_refused_at_once(key: str, text: str, parts: list[str]) -> None:
    with pytest.raises(DeviceError) as refused:
        Draft("l4").set(key, text)
    for part in (key, *parts):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"memory__bandwidth": "300 TB/s"}, ["memories.0.bandwidth", "no DRAM has more"]),
        ({"bf16": "121 PFLOP/s"}, ["outside the physical limits"]),
        ({"idle": "100 W"}, ["power.idle: 100 W is not below"]),
        ({"kind": "gpus"}, ["kind", "did you mean 'gpu'"]),
    ],
)
def test_figures_that_cannot_be_are_refused_with_the_file(
    settings: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(DeviceError) as refused:
        _draft("l4", **settings).text("mine.yaml")
    for part in ("mine.yaml: ", *parts):
        assert part in str(refused.value)


def test_a_draft_without_a_name_is_none() -> None:
    with pytest.raises(DeviceError, match=r"mine\.yaml: name: missing"):
        Draft("l4").text("mine.yaml")


def test_rates_of_an_array_follow_the_sizes_of_its_axes(tmp_path: Path) -> None:
    """32 x 16 places, two operations each, at 1 GHz; the scratchpad feeds twice as many."""
    draft = _draft("gemmini", units__mac_array__array__axes__rows__size="32 @ plan")
    figures = figures_of(_written(draft, tmp_path))
    assert figures["units.mac_array.rates.int8.ops_per_s"].value == pytest.approx(32 * 16 * 2e9)
    assert figures["memories.scratchpad.bandwidth_bytes_per_s"].value == pytest.approx(64e9)
