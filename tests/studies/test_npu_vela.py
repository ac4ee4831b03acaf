"""Predictions for Ethos-U beside Vela's, and the tables of the study's README."""

from __future__ import annotations

import pytest

from studies.npu_vela.__main__ import README, by_network, errors, table
from studies.npu_vela.compare import Comparison, compare

DEVICES = ("ethos-u55-128", "ethos-u55", "ethos-u65-512", "ethos-u85-512")


@pytest.fixture(name="found", scope="module")
def found_fixture() -> Comparison:
    return compare()


def test_the_readme_has_the_study_s_tables(found: Comparison) -> None:
    text = README.read_text(encoding="utf-8")
    assert table(found) in text
    assert by_network(found) in text


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("which", "count"), [("fresh", 36), ("seen", 101)])
def test_cycles_are_vela_s(found: Comparison, which: str, count: int, device: str) -> None:
    regions = found.regions
    own = regions[(regions.device == device) & (regions.set == which)]
    assert len(own) == count
    assert errors(own).median() < 0.01
    assert (errors(own) < 0.15).mean() > 0.93
    assert own.predicted.corr(own.vela, method="spearman") > 0.97


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["anomaly", "digits"])
def test_fully_connected_layers_are_vela_s_on_every_device(
    found: Comparison, network: str, device: str
) -> None:
    """On a U65 the same layer takes up to 2.6 times as long, by the layer before."""
    regions = found.regions
    own = regions[(regions.device == device) & (regions.network == network)]
    assert errors(own).max() < 0.15


def test_integer_networks_run_natively_from_end_to_end(found: Comparison) -> None:
    """Heads too; weights of 15 levels are int8 ones to the compiler."""
    status = found.networks.set_index("network").status
    assert set(status.drop("anomaly4")) == {"native"}
    assert set(status["anomaly4"]) == {"weight_only"}


def test_the_sram_is_vela_s(found: Comparison) -> None:
    off = (found.networks.sram / found.networks.vela_sram - 1).abs()
    fresh = found.networks.set == "fresh"
    assert (~fresh).sum() == 44
    assert off[~fresh].max() < 0.05
    assert (off[fresh] < 0.101).sum() == 11
    assert off.median() < 0.01
