"""JSON schemas of device, runtime, space and method files, from the records that read them.

Pydantic makes the schema; the string below a field, which says what it means, is read off the
source, and what examples a record does not give are taken from the shipped files.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from dse.errors import SpaceError
from dse.space.kind import TRAINING
from dse.space.schema import Space
from dse.training.method import Method
from dse.training.search.schema import TrainingSpace
from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Runtime
from hwmodels.validation import INLINE
from hwmodels.yaml_file import read_yaml

Node = dict[str, Any]

ROOT = Path(__file__).parent.parent
SPACES = ROOT / "spaces"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SOURCED = {"kind": "assumed", "source": "mine"}
EXAMPLES: Mapping[str, object] = {
    "Device.estimator": "gpu",
    "Device.area": {"value": 12.5, "unit": "mm2", **SOURCED},
    "Device.process": {"value": 28, "unit": "nm", **SOURCED},
    "Memory.technology": "lpddr5",
    "Memory.write_bandwidth": {"value": 32, "unit": "GB/s", **SOURCED},
    "Memory.waits_for_room": True,
    "Memory.word": {"value": 64, "unit": "B", **SOURCED},
    "Memory.write_energy": {"value": 6, "unit": "pJ/B", **SOURCED},
    "Buffers.copies": 1,
    "Npu.brick": 32,
    "Functions.format": "bf16",
    "Instructions.clock": {"value": 2.1, "unit": "GHz", **SOURCED},
    "FittedFactor.term": "compute",
    "FittedFactor.runtime": "torch-cpu",
    "FittedFactor.family": "product",
    "FittedFactor.element": "bf16",
    "FittedFactor.factor": 1.15,
    "Cpu.fitted": [{"term": "compute", "element": "bf16", "factor": 1.15}],
    "KernelMode.convolution": "im2col",
    "KernelMode.lookup": {"index_bits": 4, "instructions": 6.75},
    "KernelMode.coded": True,
    "KernelMode.outliers": 0.01,
    "Lookup.index_bits": 4,
    "Lookup.entry_bytes": 2,
    "Lookup.products": 4,
    "Lookup.instructions": 6.75,
    "Lookup.of_activations": True,
    "Measurement.op": "gemm",
    "Measurement.shape": {"M": 128, "N": 4096, "K": 4096},
    "Measurement.dtype": "bf16",
    "Measurement.runtime": "torch-eager",
    "Measurement.median_us": 41.5,
    "Correction.runtime": "torch-eager",
    "Correction.kind": "gemm",
    "Correction.formats": "bf16 x int4",
    "Correction.bound": "memory",
    "Correction.factor": 1.12,
    "LossScale.interval": 500,
    "LossScale.saturated": 1e-4,
    "Sites.blocks": [0, -1],
    "Operand.gradient": "spline",
    "Update.betas": [0.9, 0.99],
    "Update.clip_norm": 0.5,
    "Update.learning_rate": 1e-3,
    "Update.momentum": 0.95,
    "Update.reset_every": 500,
    "Update.weight_decay": 0.05,
    "Target.set": {"memories.sram.capacity": "4 MiB"},
    "Space.question": "Which layers can take int4?",
    "Space.matrices": "apart",
    "Space.ranges": ["absmax", "mse", "percentile99.999"],
    "Data.sequence": 512,
    "Hardware.target": "chip",
    "Hardware.points": 64,
    "HardwareVariable.values": ["128 KiB", "256 KiB"],
    "HardwareVariable.from": "4 GB/s",
    "HardwareVariable.to": "16 GB/s",
    "HardwareVariable.steps": 3,
    "HardwareVariable.scale": "log",
    "HardwareVariable.options": {
        "output": {"set": {"units.mac_array.array.stationary": "output"}}
    },
    "HardwareOption.set": {"units.mac_array.array.stationary": "output"},
    "HardwareOption.runs": ["bf16", "w8a8_int8_static"],
    "Match.name": "blocks.0/*",
    "Match.blocks": [0, -1],
    "QualityOf.output": "logits",
    "QualityOf.kind": "regression",
    "QualityOf.kinds": {"boxes": "regression", "classes": "binary"},
    "QualityOf.weights": {"boxes": 0.5, "anchors": 0},
    "Scenario.tensor_parallel": 2,
    "Scenario.memory_utilisation": 0.8,
    "OfferedLoad.rate": 3,
    "OfferedLoad.clients": 64,
    "OfferedLoad.bounds": ["ttft_p99_s<=0.5", "tpot_p99_s<=0.03"],
    "TrainingSpace.objectives": ["gap", "step_s"],
    "Operand.format": "nvfp4",
    "Operand.hadamard": 16,
    "Operand.signs": "fixed",
    "Operand.scales": "four_over_six",
    "Operand.headroom": 1.0625,
    "Operand.of": "forward",
    "Operand.scale_gradient": "absmax",
    "Operand.smooth": True,
    "Schedule.cycles": 8,
    "Schedule.window": 5,
    "Schedule.threshold": 0.05,
    "Schedule.decay": 0.3,
    "Schedule.budget": 0.03,
    "Schedule.pressure": 0.1,
    "Oscillation.every": 200,
    "Oscillation.window": 50,
    "Oscillation.ratio": 16,
    "Rounds.clients": 8,
    "Rounds.every": 10,
    "Split.kind": "dirichlet",
    "Rounds.split": {"kind": "dirichlet", "concentration": 0.3},
    "Split.concentration": 0.3,
    "Split.shards": 2,
    "Tuning.density": 0.4,
    "Tuning.rank": 8,
    "Tuning.grown": 16,
    "Tuning.factor": 2,
    "Tuning.layers": ["*q_proj", "*v_proj"],
    "Tuning.begins": 0.5,
    "Pruning.layers": ["*gate_proj", "*up_proj"],
    "Pruning.channels": 64,
    "Pruning.salience": "gradient",
    "Pruning.ends": 0.5,
    "Pruning.every": 10,
    "Pruning.fade": 10,
    "Distillation.momentum": 0.9,
    "Sites.kind": "attention",
    "Batching.tokens": 8192,
    "Batching.requests": 256,
    "Target.runtime": "vllm",
    "TrainingSpace.question": "Which FP4 recipe loses least?",
    "Effort.seed": 1,
    "Effort.method": "nsga2",
    "Effort.arguments": {"population_size": 16},
    "Effort.contenders": 8,
    "OperandChange.element": "e5m2",
    "OperandChange.block": "128x128",
    "OperandChange.scale": "ue5m3",
    "OperandChange.tensor_scale": "none",
    "OperandChange.rounding": "stochastic",
    "OperandChange.timing": "delayed16",
    "OperandChange.scales": "four_over_six",
    "OperandChange.hadamard": 16,
    "OperandChange.signs": "fixed",
    "OperandChange.headroom": 1.0625,
    "OperandChange.of": "forward",
    "OperandChange.gradient": "spline",
    "OperandChange.scale_gradient": "absmax",
    "OperandChange.smooth": True,
    "Option.gradient": "spline",
    "Option.scale_gradient": "absmax",
    "Option.smooth": True,
    "Option.loss_scale": {"kind": "dynamic"},
    "UpdateChange.mode": "kahan",
    "UpdateChange.learning_rate": 1e-3,
    "LossScaleChange.kind": "dynamic",
    "LossScaleChange.initial": 1024,
    "Search.seed": 1,
    "Search.method": "nsga2",
    "Search.arguments": {"population_size": 16},
    "Search.sensitivity": "direct",
    "Search.prune_at": 0.25,
    "Target.price_usd_per_h": 2.5,
    "Search.focus": ["quality_loss<=0.03"],
}
"""Examples of fields that no shipped file has, or none with another value than the default."""
LONGEST_EXAMPLE = 110
"""Characters of an example; longer lists and plain mappings are cut to their first entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """A kind of file that people write: its record, its schema, and files that are shipped."""

    name: str
    record: type
    schema: Path
    folder: Path
    first: tuple[str, ...]
    """Files whose values are examples before others'."""
    word: str | None = None
    """Word under `kind` of its files, where their folder holds others, too."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The shipped files, those that examples are taken from first."""
        found = sorted(self.folder.glob("*.yaml"))
        if self.folder == SPACES:
            found = [path for path in found if _word(path) == self.word]
        first = [self.folder / f"{name}.yaml" for name in self.first]
        return (*first, *(path for path in found if path not in first))


KINDS = (
    FileKind(
        name="device",
        record=Device,
        schema=ROOT / "hwmodels/devices/device.schema.json",
        folder=ROOT / "hwmodels/devices",
        first=("h100-sxm", "gemmini", "edge-npu"),
    ),
    FileKind(
        name="runtime",
        record=Runtime,
        schema=ROOT / "hwmodels/runtimes/runtime.schema.json",
        folder=ROOT / "hwmodels/runtimes",
        first=("vllm",),
    ),
    FileKind(
        name="space",
        record=Space,
        schema=ROOT / "dse/space/space.schema.json",
        folder=SPACES,
        first=("fp4", "serving"),
    ),
    FileKind(
        name="training space",
        record=TrainingSpace,
        schema=ROOT / "dse/training/search/space.schema.json",
        folder=SPACES,
        first=("fp4-training", "fp8-training"),
        word=TRAINING,
    ),
    FileKind(
        name="method",
        record=Method,
        schema=ROOT / "dse/training/method.schema.json",
        folder=ROOT / "dse/training/methods",
        first=("nvfp4", "quartet_ii"),
    ),
)


def _word(path: Path) -> object:
    """The word under a file's `kind`; None where it has none."""
    content = read_yaml(path, SpaceError)
    return content.get("kind") if isinstance(content, Mapping) else None


def schema_of(kind: FileKind) -> Node:
    """The JSON schema of a kind of file: a title and words to every field, examples to most."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind.record)
    schema = adapter.json_schema(schema_generator=_Worded)
    definitions = schema.setdefault("$defs", {})
    for record in (schema, *definitions.values()):
        _merge_inline(record, definitions)
        for key, field in record.get("properties", {}).items():
            if (name := f"{record['title']}.{key}") in EXAMPLES:
                field["examples"] = [EXAMPLES[name]]
    _tidy(schema)
    for path in kind.files:
        content = read_yaml(path, SpaceError)
        for field, value in walked(schema, content, definitions):
            _add_example(field, value)
    return {"$schema": DIALECT, **schema}


def schema_text(kind: FileKind) -> str:
    """The schema as its file has it."""
    return json.dumps(schema_of(kind), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def walked(node: Node, content: object, definitions: Node) -> Iterator[tuple[Node, object]]:
    """Fields of a file's content, each with its schema, outer ones first."""
    node = resolved(node, content, definitions)
    if isinstance(content, Mapping):
        fields = node.get("properties", {})
        others = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
        other = next((one for one in others if isinstance(one, dict)), None)
        for key, value in content.items():
            inner = fields.get(key) or other
            if inner is not None:
                if key in fields:
                    yield inner, value
                yield from walked(inner, value, definitions)
    elif isinstance(content, list) and "items" in node:
        for value in content:
            yield from walked(node["items"], value, definitions)


def resolved(node: Node, content: object, definitions: Node) -> Node:
    """The record, list or mapping that a field's schema is for content of that type."""
    wanted = {"object"} if isinstance(content, Mapping) else {"array"}
    for branch in node.get("anyOf", (node,)):
        reference = branch.get("$ref")
        found: Node = definitions[reference.rsplit("/", 1)[-1]] if reference else branch
        if "anyOf" in found:
            found = resolved(found, content, definitions)
        if found.get("type") in wanted:
            return found
    return node


def field_words(record: type[object]) -> dict[str, str]:
    """The strings below the fields of a class, by attribute."""
    found = {}
    for field, below in pairwise(_class_bodies(record.__module__)[record.__name__]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(words))):
                    found[field.target.id] = inspect.cleandoc(words)
    return found


@cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of a module's classes by name."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


BOUNDS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum",
}  # fmt: skip
"""JSON Schema's words for bounds that pydantic leaves in its own behind another validator."""


class _Worded(GenerateJsonSchema):
    """A generator that describes the fields of plain dataclasses, too, and sets no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a title that repeats the key says nothing."""
        return False

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """The schema of a dataclass with the strings below its fields."""
        found = super().dataclass_schema(schema)
        words = field_words(schema["cls"])
        inner: Any = schema["schema"]
        while "fields" not in inner:
            inner = inner["schema"]
        for field in inner["fields"]:
            key = field.get("validation_alias", field["name"])
            if field["name"] in words and key in found["properties"]:  # of what a file may say
                found["properties"][key]["description"] = words[field["name"]]
        return found


def _merge_inline(record: Node, definitions: Node) -> None:
    """Puts the keys of a figure that stand among a record's own there."""
    fields = record.get("properties", {})
    if INLINE not in fields:
        return
    figure = fields.pop(INLINE)
    inner = definitions[figure["$ref"].rsplit("/", 1)[-1]]
    for key, field in inner["properties"].items():
        fields[key] = field | figure["properties"].get(key, {})
    needed = [key for key in record.get("required", ()) if key != INLINE]
    record["required"] = [*needed, *inner["required"]]


def _tidy(node: object) -> None:
    """Joins lines of descriptions, names bounds, drops defaults beyond JSON, closes mappings."""
    if isinstance(node, dict):
        if isinstance(words := node.get("description"), str):
            parts = words.partition("\n\nRaises:")[0].split("\n\n")
            node["description"] = "\n\n".join(" ".join(part.split()) for part in parts)
        for bound in BOUNDS.keys() & node.keys():
            if isinstance(node[bound], int | float):
                node[BOUNDS[bound]] = node.pop(bound)
        if "patternProperties" in node:
            node["additionalProperties"] = False
        default = node.get("default")
        if isinstance(default, float) and not math.isfinite(default):
            del node["default"]
        for inner in node.values():
            _tidy(inner)
    elif isinstance(node, list):
        for inner in node:
            _tidy(inner)


def _add_example(field: Node, value: object) -> None:
    """The first value that is no default and fits is the field's example."""
    if "examples" in field or value in (None, [], {}, "", field.get("default")):
        return
    if not (isinstance(value, dict) and "$ref" in json.dumps(field)):
        value = _cut(value)
    if len(json.dumps(value)) <= LONGEST_EXAMPLE and not _holds_records(value):
        field["examples"] = [value]


def _cut(value: object) -> object:
    """As many of the first entries as an example may have, at least one."""
    while isinstance(value, list | dict) and len(value) > 1:
        if len(json.dumps(value)) <= LONGEST_EXAMPLE:
            break
        value = dict([*value.items()][:-1]) if isinstance(value, dict) else value[:-1]
    return value


def _holds_records(value: object) -> bool:
    """Whether it holds mappings in a list or mapping, which have fields of their own."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, dict) for one in inner)
