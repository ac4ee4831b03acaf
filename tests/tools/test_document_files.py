"""docs/files.md and the JSON schemas are what the records say, and fit every file that is here."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dse.errors import SpaceError
from dse.space import schema as space_schema
from dse.training import method
from hwmodels.devices import device, npu, quantity, spatial
from hwmodels.runtimes import quantisation, runtime
from hwmodels.validation import INLINE, Entry
from hwmodels.yaml_file import parse_yaml, read_yaml
from tools.document_files import DOCUMENT, texts
from tools.file_schema import KINDS, ROOT, FileKind, Node

MODULES = (device, npu, quantity, spatial, quantisation, runtime, method)
KIND = {kind.name: kind for kind in KINDS}
SPACES = sorted((ROOT / "studies").glob("**/spaces/*.yaml"))
FILES = [(kind, path) for kind in KINDS for path in kind.files]
FILES += [(KIND["space"], path) for path in SPACES]
H100 = ROOT / "hwmodels/devices/h100-sxm.yaml"
VLLM = ROOT / "hwmodels/runtimes/vllm.yaml"
FP4 = ROOT / "spaces/fp4.yaml"


def schema(kind: FileKind) -> Node:
    found: Node = json.loads(kind.schema.read_text(encoding="utf-8"))
    return found


def records() -> Iterator[tuple[str, Node]]:
    for kind in KINDS:
        found = schema(kind)
        yield from ((record["title"], record) for record in (found, *found["$defs"].values()))


def errors(kind: FileKind, content: object) -> list[Any]:
    return [*jsonschema.Draft202012Validator(schema(kind)).iter_errors(content)]


def test_generated_files_are_up_to_date() -> None:
    for path, text in texts():
        assert path.read_text(encoding="utf-8") == text, f"{path}: python -m tools.document_files"


def test_every_field_has_words() -> None:
    """A string below the field says what it means; the generator reads it from there."""
    silent = [
        f"{name}.{key}"
        for name, record in records()
        for key, field in record["properties"].items()
        if not field.get("description", "").strip()
    ]
    assert not silent, "these fields need a string below them"


def test_every_field_that_is_no_record_has_an_example_that_fits_it() -> None:
    """Where no shipped file has one, `tools.file_schema.EXAMPLES` must."""
    lacking = [
        f"{name}.{key}"
        for name, record in records()
        for key, field in record["properties"].items()
        if "examples" not in field and not _holds_records(json.dumps(field))
    ]
    assert not lacking
    for kind in KINDS:
        found = schema(kind)
        for record in (found, *found["$defs"].values()):
            for field in record["properties"].values():
                for example in field.get("examples", ()):
                    one = jsonschema.Draft202012Validator({"$defs": found["$defs"], **field})
                    assert [*one.iter_errors(example)] == []


def _holds_records(field: str) -> bool:
    """Whether a field's schema is of records that are no figures."""
    return "$ref" in field and '"unit"' not in field


def test_a_schema_refuses_what_the_reader_refuses() -> None:
    """A bound behind another validator too, which pydantic writes in words of its own."""
    found = schema(next(kind for kind in KINDS if "Cpu" in schema(kind)["$defs"]))
    narrow = {"$defs": found["$defs"], **found["$defs"]["Cpu"]["properties"]["vector_bytes"]}
    check = jsonschema.Draft202012Validator(narrow)
    assert [*check.iter_errors(8)] == []
    assert [*check.iter_errors(7)]


def test_every_field_of_every_record_is_in_the_page() -> None:
    """The records that pydantic fills, asked apart from the generator."""
    text = DOCUMENT.read_text(encoding="utf-8")
    pages = {part.splitlines()[0]: part for part in text.split("\n### ")[1:]}
    pages["SourcedValue"] = text.split("## Device file")[0]
    entries = [one for one in Entry.__subclasses__() if one.__module__ in
               {module.__name__ for module in MODULES}]  # fmt: skip
    assert len(entries) >= 20
    for record in entries:
        for field in fields(record):  # type: ignore[arg-type]
            if not field.init:  # the program's own, which no file says
                continue
            key = _key(record, field.name)
            assert key == INLINE or f"| `{key}` |" in pages[record.__name__]
    for model in space_schema.Section.__subclasses__():
        for name, known in model.model_fields.items():
            assert f"| `{known.alias or name}` |" in pages[model.__name__]


def _key(record: type, name: str) -> str:
    """The key of an attribute in a file, from its annotation."""
    annotation = str(record.__annotations__[name])
    alias = annotation.partition("validation_alias=")[2]
    if alias.startswith("INLINE"):
        return INLINE
    return re.split("[\"']", alias)[1] if alias else name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_schemas_are_schemas(kind: FileKind) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda one: getattr(one, "stem", ""))
def test_schemas_take_every_file_that_is_here(kind: FileKind, path: Path) -> None:
    assert errors(kind, read_yaml(path, SpaceError)) == []


def test_schemas_take_the_files_of_the_documentation() -> None:
    text = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", text, re.DOTALL))
    for kind, name in (("device", "npu"), ("runtime", "acme")):
        assert errors(KIND[kind], parse_yaml(blocks[name], name, SpaceError)) == []


@pytest.mark.parametrize(
    ("kind", "path", "change", "where"),
    [
        ("device", H100, {"colour": "green"}, []),
        ("device", H100, {"kind": "dsp"}, ["kind"]),
        ("device", H100, {"launch": 2}, ["launch"]),
        ("device", H100, {"year": 1066}, ["year"]),
        ("device", H100, {"name": "H100"}, ["name"]),
        ("runtime", VLLM, {"placement": "somewhere"}, ["placement"]),
        ("runtime", VLLM, {"version": 1.0}, ["version"]),
        ("runtime", VLLM, {"epilogue": "bias"}, ["epilogue"]),
        ("space", FP4, {"candidates": []}, ["candidates"]),
        ("space", FP4, {"search": {"trials": 0}}, ["search", "trials"]),
        ("space", FP4, {"scenario": {"phases": {"a b": {}}}}, ["scenario", "phases"]),
    ],
)
def test_schemas_refuse_what_the_reader_refuses(
    kind: str, path: Path, change: Node, where: list[str]
) -> None:
    content = read_yaml(path, SpaceError)
    assert isinstance(content, dict)
    found = errors(KIND[kind], content | change)
    assert [list(error.absolute_path) for error in found] == [where]


@pytest.mark.parametrize(
    ("figure", "wrong"),
    [
        ({"unit": "W"}, ["memories", 0, "bandwidth", "unit"]),
        ({"value": 0}, ["memories", 0, "bandwidth", "value"]),
        ({"kind": "guessed"}, ["memories", 0, "bandwidth", "kind"]),
        ({"page": 2}, ["memories", 0, "bandwidth"]),
    ],
)
def test_schemas_refuse_a_wrong_figure(figure: Node, wrong: list[str | int]) -> None:
    content: Any = copy.deepcopy(read_yaml(H100, SpaceError))
    content["memories"][0]["bandwidth"] |= figure
    assert [list(one.absolute_path) for one in errors(KIND["device"], content)] == [wrong]


def test_figures_inside_of_a_record_have_the_units_of_their_dimension() -> None:
    content: Any = copy.deepcopy(read_yaml(H100, SpaceError))
    content["units"][0]["rates"][0]["unit"] = "GB/s"
    del content["power"]["per_op"][0]["value"]
    assert [list(one.absolute_path) for one in errors(KIND["device"], content)] == [
        ["units", 0, "rates", 0, "unit"],
        ["power", "per_op", 0],
    ]


def test_a_target_may_be_a_text() -> None:
    content = read_yaml(FP4, SpaceError)
    assert isinstance(content, dict)
    assert errors(KIND["space"], content | {"targets": ["h100-sxm:vllm"]}) == []
    assert errors(KIND["space"], content | {"targets": [7]}) != []


def test_the_page_says_unit_default_words_and_example_of_a_field() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert "| bandwidth | `B/s`, `MB/s`, `GB/s`, `TB/s` |" in text
    assert (
        "| `trials` | whole number ≥ 1 | `48` | Measured assignments in all: uniforms, solver "
        "candidates and the sampler's. | `trials: 40` |"
    ) in text
    assert "| `role` | `matrix`, `vector`, `host` | *required* |" in text
    assert "| `blocks` | list of 2, each whole number | – |" in text
