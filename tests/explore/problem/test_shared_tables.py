"""A table that look-up and head share is one copy or two, as the target's runtime has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dse.explore.problem.design import Design, open_design
from dse.space.load import parse_space
from hwmodels.formats.quantizer import Quantizer
from tests.evaluate import tied
from tests.evaluate.tied import DEPTH, HEAD, ROWS, TABLE

ELEMENTS = ROWS * DEPTH
REST = 2 * DEPTH * DEPTH


def _design(folder: Path, *runtimes: str) -> Design:
    tied.save(folder / "m.onnx", np.ones)
    targets = "".join(f"  - {{device: h100-sxm, runtime: {one}}}\n" for one in runtimes)
    text = (
        "model: m.onnx\ndata: {source: d.npz}\n"
        "scenario: {phases: {call: {share: 1, dims: {batch: 1, sequence: 4}}}}\n"
        f"targets:\n{targets}"
        "candidates:\n"
        "  - match: {role: head}\n"
        "    use: [bf16, {name: q8, weight: q8_0}, {name: odd, weight: int7_channel},\n"
        "          {name: i8, weight: int8_channel}]\n"
        "  - {match: {}, use: [bf16]}\n"
        "objectives: [quality_loss, weight_bytes]\n"
    )
    return open_design(parse_space(text, origin="s"), origin="s", folder=folder)


def _points(design: Design) -> dict[str, tuple[int, ...]]:
    """The point of each choice of the head."""
    (head,) = (at for at, one in enumerate(design.problem.variables) if len(one.choices) > 1)
    return {
        choice.name: tuple(
            at if place == head else 0 for place in range(len(design.problem.variables))
        )
        for at, choice in enumerate(design.problem.variables[head].choices)
    }


def _chosen(design: Design) -> dict[str, dict[str, Quantizer]]:
    return {name: design.problem.assignment(at).as_dict() for name, at in _points(design).items()}


def _bytes(design: Design, column: str = "weight_bytes") -> dict[str, float]:
    return {name: design.total(point)[column] for name, point in _points(design).items()}


def test_llama_cpp_has_one_table_in_the_format_of_the_head(tmp_path: Path) -> None:
    design = _design(tmp_path, "llama-cpp")
    found = _bytes(design)
    assert found["bf16"] == REST + 2 * ELEMENTS
    assert found["q8"] == REST + ELEMENTS // 32 * 34
    # Without a kernel the head is held in 16 bits, and so is the table.
    assert found["odd"] == found["i8"] == found["bf16"]
    chosen = {
        name: design.problem.assignment(at).as_dict() for name, at in _points(design).items()
    }
    assert TABLE not in chosen["bf16"]
    assert chosen["q8"][TABLE] == chosen["q8"][HEAD]


def test_others_keep_two_copies_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    design = _design(tmp_path, "free")
    found = _bytes(design)
    assert found["bf16"] == REST + 2 * ELEMENTS
    assert found["i8"] == REST + 2 * ELEMENTS + ELEMENTS + 4 * ROWS
    assert "table: a look-up and head share it, and the look-up keeps 16 bits" in caplog.text
    assert not any(
        TABLE in design.problem.assignment(at).as_dict() for at in _points(design).values()
    )


def test_one_assignment_for_both_kinds_has_two_copies(tmp_path: Path) -> None:
    design = _design(tmp_path, "llama-cpp", "free")
    for label in ("h100-sxm-llama-cpp", "h100-sxm-free"):
        found = _bytes(design, f"{label}.weight_bytes")
        assert found["q8"] == REST + 2 * ELEMENTS + ELEMENTS // 32 * 34
