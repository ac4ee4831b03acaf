"""Files of text: plain, JSONL (`text` or `messages`), parquet with such columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from dse.errors import DataError, nearest

SUFFIXES = (".txt", ".jsonl", ".parquet")
COLUMNS = ("text", "messages")
Record = Mapping[str, Any]


def documents(path: Path) -> Iterator[Record]:
    """The documents of a file, one after the other: a mapping with `text` or `messages`.

    Raises:
        DataError: No such file, another format, a record without a text.
    """
    if not path.is_file():
        siblings = [str(found) for found in path.parent.glob(f"*{path.suffix}")]
        raise DataError(f"{path}: no such file{nearest(str(path), siblings)}")
    if path.suffix == ".txt":
        return iter([{"text": _text(path)}])
    records = jsonl(path) if path.suffix == ".jsonl" else _parquet(path)
    return _checked(records, path)


def jsonl(path: Path) -> Iterator[Record]:
    """The mappings of a JSONL file.

    Raises:
        DataError: A line that is no JSON object.
    """
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            got = type(record).__name__
            raise DataError(f"{path}:{number}: expected an object, got {got}")
        yield record


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error


def _checked(records: Iterator[Record], path: Path) -> Iterator[Record]:
    for number, record in enumerate(records, start=1):
        text, messages = (record.get(name) for name in COLUMNS)
        if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages):
            yield {"messages": messages}
        elif isinstance(text, str):
            yield {"text": text}
        else:
            raise DataError(
                f"{path}: record {number}: expected 'text' (a string) or 'messages' (a list of "
                f"objects with role and content), got {', '.join(map(repr, record)) or 'nothing'}"
            )


def _parquet(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs: pip install pyarrow") from error
    try:
        file = parquet.ParquetFile(path)
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        batches = file.iter_batches(columns=names)
        return chain.from_iterable(batch.to_pylist() for batch in batches)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a parquet file: {error}") from error
