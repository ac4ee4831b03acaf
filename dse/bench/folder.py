"""A folder of results: one folder a model, named as it was proposed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dse.bench import llama_cpp, lm_eval, tensorrt_llm, vllm
from dse.bench.reading import Reading
from dse.errors import RunError

RESULTS = "results"
"""The folder beside the proposals that tools write into."""
REFERENCE = "reference"
"""The folder of what was measured of the unquantized model."""
PARTIAL = ".partial"
"""End of a name that a tool has not finished writing to."""
BESIDE = (".pytorch.json", ".log")
TOOLS = "lm-eval, vllm bench, trtllm-bench, llama-perplexity, llama-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The readings of one model."""

    name: str
    """Its folder's: a digest, or `reference`."""
    readings: tuple[Reading, ...]


def read_folder(folder: Path) -> tuple[Measured, ...]:
    """The readings of everything that tools have written below a folder, by model.

    Args:
        folder: the folder of proposals, which has `results`, or that folder itself.

    Raises:
        RunError: no results; files that no tool of ours writes, are torn, or have figures that
            are none; all in one message.
    """
    root = folder / RESULTS if (folder / RESULTS).is_dir() else folder
    problems = [
        f"{path}: belongs to no model: results stand in {root / '<digest>'} or {root / REFERENCE}"
        for path in sorted(root.iterdir())
        if path.is_file() and not _is_side_file(path)
    ]
    found = []
    for place in sorted(path for path in root.iterdir() if path.is_dir()):
        readings = []
        for file in sorted(path for path in place.rglob("*") if path.is_file()):
            try:
                readings += [] if _is_side_file(file) else [read_file(file)]
            except RunError as error:
                problems.append(str(error))
        found.append(Measured(name=place.name, readings=tuple(readings)))
    if problems:
        raise RunError("\n".join(problems))
    if not any(one.readings for one in found):
        raise RunError(
            f"{root}: no results; run the script that `dse propose --to` wrote, or put what the "
            f"tools write ({TOOLS}) into {root / '<digest>'}"
        )
    return tuple(found)


def read_file(file: Path) -> Reading:
    """The reading of one file, whichever tool wrote it.

    Raises:
        RunError: it cannot be read, is torn, or is of no tool that is known.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: cannot be read as text: {error}") from error
    if file.suffix in (".json", ".jsonl"):
        reading = _json_reading(file, text)
    else:
        rows = llama_cpp.bench_markdown(text) or llama_cpp.bench_csv(text.splitlines(), str(file))
        reading = llama_cpp.read_bench(rows, file) if rows else None
        if reading is None and llama_cpp.is_perplexity(text):
            reading = llama_cpp.read_perplexity(text, file)
    if reading is None:
        raise RunError(f"{file}: is not what any of {TOOLS} writes; move it elsewhere")
    return reading


def _json_reading(file: Path, text: str) -> Reading | None:
    content = _lines(file, text) if file.suffix == ".jsonl" else _parsed(file, text)
    if llama_cpp.is_bench(content):
        assert isinstance(content, list)
        return llama_cpp.read_bench(content, file)
    readers = (
        (tensorrt_llm.is_mine, tensorrt_llm.read),
        (vllm.is_serve, vllm.read_serve),
        (vllm.is_latency, vllm.read_latency),
        (vllm.is_throughput, vllm.read_throughput),
        (lm_eval.is_mine, lm_eval.read),
    )
    for is_mine, read in readers:
        if is_mine(content):
            assert isinstance(content, dict)
            return read(content, file)
    return None


def _parsed(file: Path, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunError(
            f"{file}: is torn, or no JSON: {error}; remove it and measure it again"
        ) from error
    except RecursionError:
        raise RunError(f"{file}: is nested too deeply to be a tool's result") from None


def _lines(file: Path, text: str) -> list[object]:
    """The values of JSON lines. `vllm bench serve` appends whole results so, one is one."""
    return [_parsed(file, line) for line in text.splitlines() if line.strip()]


def _is_side_file(file: Path) -> bool:
    """Whether a tool writes it beside its result: samples, another program's form, a part."""
    part = any(name.endswith(PARTIAL) for name in file.parts)
    beside = file.name.startswith((".", "samples_")) or file.name.endswith(BESIDE)
    return part or beside


def partial_files(folder: Path) -> Iterator[Path]:
    """Results that were begun and not ended."""
    yield from sorted(folder.rglob(f"*{PARTIAL}"))
