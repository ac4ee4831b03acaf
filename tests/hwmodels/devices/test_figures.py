"""Figures by path, and devices with one of them changed."""

from __future__ import annotations

import pytest

from hwmodels.devices.device import Device
from hwmodels.devices.figures import figures_of, scaled
from hwmodels.devices.load import device_names, load_device


@pytest.mark.parametrize("name", device_names())
def test_every_figure_has_a_path_of_its_own(name: str) -> None:
    device = load_device(name)
    assert tuple(figures_of(device).values()) == device.figures


@pytest.mark.parametrize("name", ["h100-sxm", "ethos-u55", "gaudi2"])
def test_one_figure_changes_and_nothing_else(name: str) -> None:
    device = load_device(name)
    before = figures_of(device)
    for path in before:
        changed = scaled(device, path, 1.25)
        assert isinstance(changed, Device)
        after = figures_of(changed)
        assert after[path].value == pytest.approx(1.25 * before[path].value)
        assert {key: one for key, one in after.items() if key != path} == {
            key: one for key, one in before.items() if key != path
        }


def test_a_path_that_is_no_figure_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"power\.idle"):
        scaled(load_device("l4"), "power.idle", 2.0)
