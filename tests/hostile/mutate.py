"""Mutations that keep the structure of an input, so that they get past its first reader.

Every function takes a `random.Random`, which is seeded by the case's number.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from google.protobuf.message import Message

from tests.hostile import seeds

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 10**5)
TEXTS = ("", ".", "x", "\x00", "²", "\x1b[2J", "a" * 3000, "../x", "/dev/zero", "batch", "float32",
         "nan", "bij,bjk->bik", "{}", "os:abort", "é ü", "-1", "1e400")  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1e308, -1e-320, 2**70, float("inf"), float("nan"), 10**12,
    "", [], {}, [[]], "x", "int8", "h100-sxm", "w4a16", [1, "a"], {"a": 1},
)  # fmt: skip
OPERATORS = ("Relu", "MatMul", "Gemm", "Conv", "Reshape", "Transpose", "Softmax", "Expand", "Tile",
             "TopK", "Gather", "NonZero", "Range", "ConstantOfShape", "Slice", "Pad", "OneHot",
             "Split", "Concat", "LayerNormalization", "LSTM", "If", "Loop", "Scan", "Floor",
             "QuantizeLinear",
             "DequantizeLinear", "Resize", "Einsum", "Attention", "Cast", "Where", "ReduceMean",
             "Squeeze", "CumSum", "GridSample", "Unique", "Compress", "MaxPool", "Constant",
             "SequenceAt", "SplitToSequence", "BatchNormalization", "NoSuchOp")  # fmt: skip


def model(rng: random.Random) -> bytes:
    """An ONNX file with one to six changes."""
    proto = seeds.MODELS[rng.choice(sorted(seeds.MODELS))]()
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _change(rng, rng.choice(list(_messages(proto))))
    content = proto.SerializeToString()
    return flipped(rng, content) if rng.random() < 0.15 else content


def annotated_model(rng: random.Random, path: Path) -> bytes:
    """An annotated model with another value or key of one or two of its annotations."""
    proto = onnx.load(path)
    entries = [*proto.metadata_props, *(e for n in proto.graph.node for e in n.metadata_props)]
    for _ in range(rng.choice((1, 1, 2))):
        entry = rng.choice(entries)
        if rng.random() < 0.7 and entry.value:  # a first change may have emptied it
            changed = tree(rng, [json.loads(entry.value)])
            entry.value = json.dumps(changed[0]) if changed and isinstance(changed, list) else ""
        else:
            _change(rng, entry)
    return proto.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for _, value in message.ListFields():
        for inner in (value,) if isinstance(value, Message) else _repeated(value):
            yield from _messages(inner)


def _repeated(value: object) -> list[Message]:
    if isinstance(value, str | bytes | int | float):
        return []
    found = list(value)  # type: ignore[call-overload]
    return found if found and isinstance(found[0], Message) else []


def _change(rng: random.Random, message: Message) -> None:
    """Another value for one field of a message, or none."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif isinstance(value, str | bytes | int | float):
        _set(message, field.name, _other(rng, field.name, value))
    elif not isinstance(value, Message):
        _change_list(rng, value)


def _set(message: Message, name: str, value: object) -> None:
    with contextlib.suppress(ValueError, TypeError):  # an enumeration without such a number
        setattr(message, name, value)


def _other(rng: random.Random, name: str, value: Any) -> object:
    if name == "op_type":
        return rng.choice(OPERATORS)
    if isinstance(value, str):
        return rng.choice((*TEXTS, "w", "x", "y", "h", value + "_"))
    if isinstance(value, bytes):
        return flipped(rng, value)
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    if name in ("data_type", "elem_type", "type"):
        return rng.randrange(0, 30)
    return rng.choice((*NUMBERS, int(value) + 1))


def _change_list(rng: random.Random, values: Any) -> None:
    """One entry of a list doubled, dropped, moved or changed."""
    if not len(values):
        return
    index, kind = rng.randrange(len(values)), rng.randrange(4)
    entries = list(values)
    if kind == 0:
        entries.insert(rng.randrange(len(entries) + 1), copy.deepcopy(entries[index]))
    elif kind == 1:
        del entries[index]
    elif kind == 2:
        entries.insert(0, entries.pop(index))
    elif not isinstance(entries[index], Message):
        entries[index] = _other(rng, "", entries[index])
    kept = [copy.deepcopy(entry) for entry in entries]
    with contextlib.suppress(ValueError, TypeError):
        del values[:]
        values.extend(kept)


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some changed, cut off or doubled."""
    raw = bytearray(content)
    if not raw:
        return b"\xff"
    for _ in range(rng.choice((1, 2, 8))):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    if rng.random() < 0.2:
        del raw[rng.randrange(len(raw)) :]
    return bytes(raw)


def tree(rng: random.Random, content: Any) -> Any:
    """A nested content with one to four values or keys changed."""
    changed = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, key = rng.choice(list(_places(changed)) or [(None, None)])
        if holder is None:
            break
        action = rng.random()
        if action < 0.6:
            holder[key] = _value(rng, holder[key])
        elif action < 0.8 and isinstance(holder, dict):
            holder[rng.choice(("x", "seed", "name", str(key) + "_"))] = holder.pop(key)
        else:
            del holder[key]
    return changed


def _value(rng: random.Random, value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value * 10, -value, value + 0.5, 2**64, 10**9))
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice((*TEXTS, value * 2, value[:-1], value.upper()))
    return copy.deepcopy(rng.choice(VALUES))


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def yaml_file(rng: random.Random, content: Any) -> bytes:
    """A YAML file: changed content, or changed text."""
    text = yaml.safe_dump(tree(rng, content), sort_keys=False, allow_unicode=True).encode()
    return flipped(rng, text) if rng.random() < 0.2 else text


def shipped(rng: random.Random, catalogue: str) -> bytes:
    """A file made of one of the package's `devices` or `runtimes`."""
    folder = Path(__file__).parents[2] / "hwmodels" / catalogue
    path = rng.choice(sorted(folder.rglob("*.yaml")))
    return yaml_file(rng, yaml.safe_load(path.read_text()))


def json_file(rng: random.Random, path: Path) -> bytes:
    """A JSON file with changed content."""
    return json.dumps(tree(rng, json.loads(path.read_bytes()))).encode()


def checkpoint_file(rng: random.Random, path: Path) -> bytes:
    """A configuration, or a file of weights of which the header or the bytes are changed."""
    if path.suffix == ".json":
        return json_file(rng, path)
    content = path.read_bytes()
    if rng.random() < 0.3:
        return flipped(rng, content)
    size = int.from_bytes(content[:8], "little")
    try:
        known = json.loads(content[8 : 8 + size])
    except ValueError:
        return flipped(rng, content)  # torn by an earlier change
    header = json.dumps(tree(rng, known)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def text_file(rng: random.Random, path: Path) -> bytes:
    """A tokenizer, tasks, records or text: changed in its structure, where it has one."""
    if path.suffix == ".json" and rng.random() < 0.8:
        return json_file(rng, path)
    if path.suffix == ".yaml":
        return yaml_file(rng, yaml.safe_load(path.read_text()))
    if path.suffix == ".jsonl" and rng.random() < 0.8:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return "\n".join(map(json.dumps, tree(rng, records))).encode()
    return flipped(rng, path.read_bytes())


def table(rng: random.Random, text: str) -> bytes:
    """A CSV file with cells, rows or bytes changed."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        kind = rng.randrange(4)
        if kind == 0 and row:
            row[rng.randrange(len(row))] = rng.choice((*TEXTS, "-5", "1e309", "{", '"'))
        elif kind == 1:
            rows.insert(rng.randrange(len(rows)), list(row))
        elif kind == 2 and row:
            del row[rng.randrange(len(row))]
        else:
            row.append("x")
    content = "\n".join(map(",".join, rows)).encode()
    return flipped(rng, content) if rng.random() < 0.2 else content


def archive(rng: random.Random) -> bytes:
    """An .npz with arrays of other shapes, types or names, or other bytes."""
    named = seeds.arrays()
    name = rng.choice(sorted(named))
    values = named[name]
    kind = rng.randrange(6)
    if kind == 0:
        named[rng.choice(("y", "labels", "x"))] = named.pop(name)
    elif kind == 1:
        named[name] = values.astype(rng.choice(("S4", "U3", "?", "c8", "f2", "i1", "f8", "M8[s]")))
    elif kind == 2:
        named[name] = values.reshape(rng.choice(((-1,), (1, 1, -1))))[: rng.choice((0, 1, 5))]
    elif kind == 3:
        named[name] = np.array(rng.choice((float("nan"), float("inf"), 10**9, -7)))
    elif kind == 4:
        named[name] = np.full_like(values, rng.choice((-1, 99, 2**30)))
    content = seeds.npz(named)
    return flipped(rng, content) if kind == 5 else content


def run_file(rng: random.Random, path: Path) -> bytes:
    """A file of a run folder, changed as its kind allows."""
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        return json_file(rng, path)
    if path.suffix == ".safetensors":
        return checkpoint_file(rng, path)
    if path.suffix == ".csv" and rng.random() < 0.8:
        return table(rng, content.decode())
    return flipped(rng, content)
