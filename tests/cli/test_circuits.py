"""`dse formats`: what a format's circuit takes."""

from __future__ import annotations

import json

import pytest

from hwmodels.circuits.design import mac_design
from hwmodels.circuits.mac import mac_area_um2, mac_energy_j
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format
from tests.cli.conftest import Dse


def test_a_format_has_its_circuit_beside_int8(dse: Dse) -> None:
    content = json.loads(dse("formats", "mxint8", "--node", "7", "--json").out)
    design, reference = mac_design(format("mxint8")), mac_design(format("int8"))
    assert content["mac_area_um2"] == pytest.approx(mac_area_um2(design, 7))
    assert content["mac_energy"] == pytest.approx(
        mac_energy_j(design, 45) / mac_energy_j(reference, 45)  # the same at every node
    )
    assert content["mac_throughput"] == pytest.approx(1 / content["mac_area"])
    assert (content["mac_node_nm"], content["mac_accumulator"]) == (7, "fp32")
    assert content["mac_source"].startswith("analytic")
    out = dse("formats", "mxint8").out
    assert "at 16 nm" in out
    assert "analytic" in out


def test_input_and_accumulator_change_the_circuit(dse: Dse) -> None:
    asked = ("formats", "int8", "--input", "int4", "--accumulator", "int20", "--json")
    found = json.loads(dse(*asked).out)
    design = mac_design(format("int8"), format("int4"), accumulated=accumulator("int20"))
    assert found["mac_energy_j"] == pytest.approx(mac_energy_j(design, 16))
    assert found["mac_accumulator"] == "int20"


def test_all_circuits_are_listed_by_energy(dse: Dse) -> None:
    rows = json.loads(dse("formats", "--circuits", "--json").out)
    energies = [row["mac_energy"] for row in rows]
    assert energies == sorted(energies)
    names = {row["format"] for row in rows}
    assert {"int8", "mxfp4", "nvfp4", "posit8_1", "lns16_10", "nf4_g64", "fixed8_4"} <= names
    assert "No circuit with this accumulator: q4_1" in dse("formats", "--circuits").out


def test_a_format_without_a_circuit_says_why(dse: Dse) -> None:
    assert "no circuit model of offsets" in dse("formats", "q4_k").out
    assert "mac_energy" not in json.loads(dse("formats", "q4_k", "--json").out)


@pytest.mark.parametrize(
    ("line", "said"),
    [("formats q4_k --node 7", "no circuit model of offsets"),
     ("formats int8 --node 5", "node 5 nm"),
     ("formats --circuits --node 300", "node 300 nm"),
     ("formats mxfp4 --accumulator int16", "give a float"),
     ("formats int8 --accumulator int1", "4 to 48 bits"),
     ("formats int8 --input int88", "unknown format"),
     ("formats --node 7", "go with one format"),
     ("formats w4a8_fp8 --accumulator int16", "go with one format"),
     ("formats int8 --circuits", "leave NAME")],
)  # fmt: skip
def test_what_has_no_answer_is_an_error(dse: Dse, line: str, said: str) -> None:
    outcome = dse(*line.split())
    assert outcome.code == 2
    assert said in outcome.err.replace("\n", " ")
