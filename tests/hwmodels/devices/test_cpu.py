"""Processor files: contradictions are refused, with the field; a draft has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwmodels.devices.draft import Draft
from hwmodels.devices.load import checked_device, load_device
from hwmodels.errors import DeviceError
from tests.hwmodels.devices.changed import Content, changed


def _changed(tmp_path: Path, change: Callable[[Content], object]) -> Path:
    return changed("zen4-2c", tmp_path, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("cpu"), "cpu: a device of kind 'cpu' needs the section `cpu`"),
        (lambda c: c.update(kind="gpu"), "cpu: a device of kind 'gpu' has no section `cpu`"),
        (lambda c: c["cpu"]["instructions"][0].update(macs=16),
         "units.0.rates.0: 9.472e.11 op/s; avx2_int8 is 32 MACs a cycle, 4.736e.11 op/s on 2"),
        (lambda c: c["cpu"]["instructions"].pop(1),
         "units.0.rates.1: no cpu.instructions multiply bf16 into fp32"),
        (lambda c: c["memories"][2].update(per=["rows"]),
         "memories.2.per: rows; a processor has one instance of a level, or one a core"),
        (lambda c: c["memories"][0]["core_bandwidth"].update(value=200),
         "memories.0.core_bandwidth: 2e.11 B/s of one core is above"),
        (lambda c: c["memories"][2]["capacity"].update(value=64),
         "a level that every core has one of is no larger than a shared one"),
        (lambda c: c["cpu"].update(lanes=3), "cpu.lanes: unknown key"),
        (lambda c: c["cpu"]["fork"].update(unit="W"), "cpu.fork: expected a time"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_its_field(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        load_device(_changed(tmp_path, change))


@pytest.mark.parametrize("like", ["cpu-avx2", "xeon-8480", "zen4-2c"])
def test_a_drafted_processor_has_instructions_for_its_rates(like: str) -> None:
    draft = Draft(like)
    draft.set("name", "mine")
    draft.set("cores", "60")
    draft.set("int8", "20 TOP/s @ datasheet")
    draft.set("e4m3", "10 TOP/s @ datasheet")
    device = checked_device(draft.content(), "mine")
    assert device.cpu is not None
    cycles = 60 * device.unit("matrix").clock_hz.value
    for name, rate in (("int8", 20e12), ("e4m3", 10e12)):
        fitting = [one for one in device.cpu.instructions if one.accepts(name, name)]
        fastest = max(one.macs for one in fitting if one.accumulator in ("int32", "fp32"))
        assert 2 * fastest * cycles == pytest.approx(rate, rel=1e-3)
