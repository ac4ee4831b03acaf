"""Accumulators as words of spaces, formats and assignments, from the search to what it wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Dse
from tests.sums_chip import sums_chip

SPACE = """
model: zoo:fashion-resnet
data: {source: zoo:fashion-resnet, search: 4, report: 4}
scenario: {phases: {call: {dims: {batch: 1}}}}
targets: [{name: chip, device: sums.yaml}]
candidates:
  - use: [int8, 'int8@int20:saturate', 'int8@int14:saturate']
ties:
  - {match: {blocks: [0, 2]}, name: early}
  - {match: {blocks: [3, -1]}, name: late}
objectives: [quality_loss, latency_s, energy_j]
search: {trials: 6, sensitivity_samples: 4}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dse.cli.app import main  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("sums")
    sums_chip(folder)
    (folder / "space.yaml").write_text(SPACE)
    with pytest.raises(SystemExit) as end:
        main(["search", str(folder / "space.yaml"), "--out", str(folder / "run")])
    assert not end.value.code
    return folder


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "run" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_front_mixes_accumulators(searched: Path) -> None:
    front = json.loads((searched / "run" / "front.json").read_text())
    named = [
        {spec for key, spec in one["assignment"]["sites"].items() if key.endswith("/sum")}
        for one in front
    ]
    assert {"int20:saturate", "int14:saturate"} in named
    assert {one["choice"] for one in rows(searched, "costs.csv")} >= {
        "int8", "int8@int20:saturate", "int8@int14:saturate"
    }  # fmt: skip


def test_narrower_sums_cost_less_and_lose_more(searched: Path) -> None:
    found = {row["name"]: row for row in rows(searched, "trials.csv") if row["name"]}
    wide, middle, narrow = (
        found[name] for name in ("int8", "int8@int20:saturate", "int8@int14:saturate")
    )
    energy = [float(row["energy_j"]) for row in (wide, middle, narrow)]
    assert energy == sorted(energy, reverse=True)
    assert len(set(energy)) == 3
    assert float(narrow["latency_s"]) < float(middle["latency_s"]) == float(wide["latency_s"])
    assert float(narrow["report_quality_loss"]) > 3 * float(middle["report_quality_loss"])


def test_loss_and_price_of_a_point_are_those_of_its_assignment(
    searched: Path, dse: Dse, tmp_path: Path
) -> None:
    front = json.loads((searched / "run" / "front.json").read_text())
    table = {row["trial"]: row for row in rows(searched, "front.csv")}
    chip = searched / "sums.yaml"
    for one in front:
        if len(set(one["assignment"]["sites"].values())) < 3:
            continue
        row = table[str(one["trial"])]
        path = tmp_path / "a.json"
        path.write_text(json.dumps(one["assignment"]))
        named = ("zoo:fashion-resnet", "--assignment", path)
        (found,) = json.loads(dse("evaluate", *named, "--samples", 4, "--json").out)
        assert found["loss"] == pytest.approx(float(row["report_quality_loss"]), rel=1e-6)
        priced = dse("predict", *named, "--device", chip, "--dim", "batch=1", "--json").out
        assert json.loads(priced)[0]["energy_j"] == pytest.approx(float(row["energy_j"]))
        assert json.loads(priced)[0]["latency_s"] == pytest.approx(float(row["latency_s"]))
        return
    pytest.fail("no point has two accumulators")


HARDWARE = """
model: zoo:fashion-resnet
data: {source: zoo:fashion-resnet, search: 4, report: 4}
scenario: {phases: {call: {dims: {batch: 1}}}}
targets: [{name: chip, device: one.yaml}]
hardware:
  variables:
    sums:
      options:
        int32: {set: {units.mac_array.rates.int8.accumulator: int32}, runs: [int8]}
        int20:
          set: {units.mac_array.rates.int8.accumulator: 'int20:saturate'}
          runs: ['int8@int20:saturate']
        int14:
          set: {units.mac_array.rates.int8.accumulator: 'int14:saturate'}
          runs: ['int8@int14:saturate']
candidates:
  - use: [int8, 'int8@int20:saturate', 'int8@int14:saturate']
ties: [{match: {}, name: all}]
objectives: [quality_loss, energy_j, area_mm2]
search: {trials: 4, sensitivity_samples: 4}
"""


def test_a_chip_is_chosen_with_its_accumulator(dse: Dse, tmp_path: Path) -> None:
    """Each is smaller and takes less energy than the next wider one, and only the last loses."""
    sums_chip(tmp_path, {"int32": 0.512}).rename(tmp_path / "one.yaml")
    (tmp_path / "space.yaml").write_text(HARDWARE)
    outcome = dse("search", tmp_path / "space.yaml", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "inf×" not in outcome.out
    assert "nan×" not in outcome.out
    with (tmp_path / "run" / "front.csv").open(encoding="utf-8") as file:
        found = {row["hardware.sums"]: row for row in csv.DictReader(file)}
    assert float(found["int14"]["area_mm2"]) < float(found["int20"]["area_mm2"])
    assert float(found["int14"]["energy_j"]) < float(found["int20"]["energy_j"])
    assert float(found["int14"]["report_quality_loss"]) > 3 * float(
        found["int20"]["report_quality_loss"]
    )


def test_a_file_format_has_no_word_for_it(searched: Path, dse: Dse, tmp_path: Path) -> None:
    front = json.loads((searched / "run" / "front.json").read_text())
    trial = next(
        one["trial"]
        for one in front
        if any(key.endswith("/sum") for key in one["assignment"]["sites"])
    )
    given = ("export", searched / "run", "--trial", trial, "-o", tmp_path / "out")
    refused = dse(*given, "--to", "onnx-qdq")
    assert refused.code == 2
    assert "no word for the accumulator of a product" in refused.err
    assert not (tmp_path / "out").exists()
    assert dse(*given, "--to", "recipe", "--verify").code == 0


def test_an_annotated_copy_says_the_same(searched: Path, dse: Dse, tmp_path: Path) -> None:
    annotated = tmp_path / "annotated.onnx"
    assert dse("annotate", searched / "run", "-o", annotated).code == 0
    recommended = json.loads((searched / "run" / "recommended.json").read_text())
    row = next(r for r in rows(searched, "front.csv") if r["trial"] == str(recommended["trial"]))
    given = ("zoo:fashion-resnet", "--assignment", annotated, "--samples", 4, "--json")
    (found,) = json.loads(dse("evaluate", *given).out)
    assert found["loss"] == pytest.approx(float(row["report_quality_loss"]), rel=1e-6)
    drafted = tmp_path / "drafted.yaml"
    made = dse("init", annotated, "--target", searched / "sums.yaml", "-o", drafted)
    assert made.code == 0, made.err
    assert "int8:static@int20:saturate" in drafted.read_text()


@pytest.mark.parametrize(
    ("device", "format", "said"),
    [("h100-sxm", "int8@int16", "sums into fp32, which is fixed; leave @int16 out"),
     ("gemmini", "int8@int16", "sums int8 x int8 into int32, fp32 only; ask for one of these"),
     ("gemmini", "bf16@int16", "integers are added where both operands are integers"),
     ("gemmini", "mxint8@int24", "scales are those of whole slices"),
     ("gemmini", "int8@int99", "integers have 4 to 48 bits"),
     ("gemmini", "int8@quire", "a quire is not emulated")],
)  # fmt: skip
def test_who_cannot_sum_so_says_it(dse: Dse, device: str, format: str, said: str) -> None:
    given = ("predict", "zoo:fashion-resnet", "--device", device, "--dim", "batch=1")
    outcome = dse(*given, "--format", format)
    assert outcome.code == 2
    assert said in outcome.err


def test_scales_a_pixel_keep_their_sums(dse: Dse) -> None:
    outcome = dse("evaluate", "zoo:fashion-resnet", "--samples", 2, "--format", "w8a8_int8@int20")
    assert outcome.code == 2
    assert "no product can be summed so" in outcome.err


def test_a_format_with_an_accumulator_is_that_accumulator_everywhere(dse: Dse) -> None:
    given = ("evaluate", "zoo:fashion-resnet", "--samples", 4, "--json", "--format")
    (named,) = json.loads(dse(*given, "int8@int14:saturate").out)
    (asked,) = json.loads(dse(*given, "int8", "--accumulator", "int14:saturate").out)
    assert named["loss"] == asked["loss"]
