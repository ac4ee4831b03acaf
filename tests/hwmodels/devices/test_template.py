"""Templates of device files: usable as they stand, and what is commented out is, too."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from hwmodels.devices.device import ComputeUnit, DeviceKind, Memory, Power
from hwmodels.devices.figures import figures_of
from hwmodels.devices.load import load_device
from hwmodels.devices.template import LEFT_OUT, SCHEMA, TEMPLATES, WIDTH, template
from hwmodels.errors import DeviceError

KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> DeviceKind:
    found: DeviceKind = request.param
    return found


@pytest.fixture
def written(kind: DeviceKind, tmp_path: Path) -> Path:
    path = tmp_path / "chip.yaml"
    path.write_text(template(kind, path), encoding="utf-8")
    return path


def test_a_template_is_a_device_of_its_kind_with_nothing_but_assumptions(
    kind: DeviceKind, written: Path
) -> None:
    device, like = load_device(written), load_device(TEMPLATES[kind][1])
    assert (device.name, device.kind) == ("chip", kind)
    assert device.default_runtime == like.default_runtime
    assert {figure.kind for figure in device.figures} == {"assumed"}
    assert {figure.source for figure in device.figures} == {
        f"that of {like.name}, until somebody knows better"
    }
    found = {path: figure.value for path, figure in figures_of(device).items()}
    known = {path: figure.value for path, figure in figures_of(like).items()}
    assert found == pytest.approx({path: known[path] for path in found})
    assert known.keys() - found.keys() <= {"price_usd_per_h", "area_mm2"}


def test_it_fits_the_schema(written: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load(written.read_text(encoding="utf-8")), schema)


def test_every_field_has_its_words_above_where_it_stands_first(written: Path) -> None:
    lines = written.read_text(encoding="utf-8").splitlines()
    first: dict[str, int] = {}
    for number, line in enumerate(lines):
        if found := re.match(r"^ *(?:- )?([a-z_]+):", line):
            first.setdefault(found.group(1), number)
    assert {"name", "units", "count", "rates", "capacity", "launch", "idle"} <= first.keys()
    for key, number in first.items():
        assert lines[number - 1].lstrip().startswith("#"), key
    below = lines[lines.index("") :]
    assert max(len(line) for line in below if "{" not in line) <= WIDTH


def test_words_say_unit_and_allowed_values(tmp_path: Path) -> None:
    text = " ".join(template("array", tmp_path / "chip.yaml").replace("#", "").split())
    assert "Of one instance, reads and writes together (B/s, MB/s, GB/s, TB/s)." in text
    assert "wider element (op/s, GOP/s, TOP/s, TFLOP/s, PFLOP/s)." in text
    assert "`OX` is M, `K` is N, `C` is K. unrolls: [C]" in text
    assert "stays in the places of a systolic array during a fold (input, weight, output)." in text


def test_what_is_commented_out_may_be_taken_in(kind: DeviceKind, written: Path) -> None:
    """The first places of all of them at once."""
    keys = [name.partition(".")[2] for name in LEFT_OUT[kind]]
    text = written.read_text(encoding="utf-8")
    for key in keys:
        text, count = re.subn(rf"(?m)^( *)# ({key}: )", r"\1\2", text)
        assert count == 1
    written.write_text(text, encoding="utf-8")
    device = load_device(written)
    records: list[Any] = [device, device.units[0], *device.memories, device.power]
    aliases = {"area": "area_mm2", "price": "price_usd_per_h", "sustained": "sustained_hz",
               "process": "process_nm", "write_energy": "write_energy_per_byte_j",
               "write_bandwidth": "write_bandwidth_bytes_per_s"}  # fmt: skip
    for key in keys:
        name = aliases.get(key, key)
        owners = [
            (one, field.default) for one in records for field in fields(one) if field.name == name
        ]
        assert any(getattr(one, name) != usual for one, usual in owners)


def test_required_fields_of_all_parts_are_there(kind: DeviceKind, written: Path) -> None:
    device = load_device(written)
    assert {unit.role for unit in device.units} >= {"matrix", "vector"}
    assert isinstance(device.units[0], ComputeUnit)
    assert isinstance(device.memories[0], Memory)
    assert isinstance(device.power, Power)
    assert (device.npu is not None) == (kind == "npu")
    assert (device.unit("matrix").array is not None) == (kind == "array")


@pytest.mark.parametrize(
    ("stem", "name"), [("My Chip", "my-chip"), ("v2.1", "v2.1"), ("__", "my-gpu"), (".x", "x")]
)
def test_the_file_names_the_device(tmp_path: Path, stem: str, name: str) -> None:
    content = yaml.safe_load(template("gpu", tmp_path / f"{stem}.yaml"))
    assert content["name"] == name


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("h100-sxm.yaml", "h100-sxm is a known device"),
        ("chip.json", r"chip\.json: expected a file that ends in \.yaml or \.yml"),
        ("chip", "expected a file that ends in"),
    ],
)
def test_names_that_no_command_would_take_are_refused(
    tmp_path: Path, file: str, words: str
) -> None:
    with pytest.raises(DeviceError, match=words):
        template("gpu", tmp_path / file)
