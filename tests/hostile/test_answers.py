"""Whatever comes in: done, or one message; within 10 s of CPU and 2 GB, without a traceback.

The first 2,000 cases of `studies/hostile_inputs`, which runs more of them.
"""

from __future__ import annotations

import shutil

import pytest

from tests.hostile.answer import Answerer, import_all
from tests.hostile.cases import (
    CPU,
    EXPORTED,
    PRICED,
    RESULTS,
    SEARCHED,
    answered,
    digest_of,
    prepare,
    trial_of,
)
from tests.hostile.seeds import MODELS

IN_ALL = 2_000
EACH = 50
"""Cases a test: many tests, so that processes share them evenly."""
FOUND = (
    4035, 5628, 5495, 6080, 6185, 7681, 7886, 8886, 8894, 11033, 11208, 13323, 16234, 17093, 18595,
)  # fmt: skip
"""Later cases that were faults: Loops without results, domains without opset, damaged studies, an
equation that onnx's shape inference never ends on, infinite sizes, runs without targets."""
SOUND = (
    *(["predict", f"{name}.onnx", *PRICED] for name in MODELS if name != "attention"),
    ["predict", "attention.onnx", *PRICED, "--dim", "sequence=4"],
    ["search", "annotated.onnx", *SEARCHED[:-1], "sound.searched"],
    ["predict", "mlp.onnx", "--assignment", "annotated.onnx", "--dim", "batch=2", *CPU],
    ["import", "llama.gguf", "-o", "sound.folder"],
    ["predict", "encoder", *PRICED, "--dim", "sequence=4"],
    ["evaluate", "llama", "--format", "w8a8_int8", "--data", "text.txt", "--samples", "2"],
)  # fmt: skip
"""A mutation of what is refused as it stands would try nothing."""


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    import_all()
    answerer = Answerer(tmp_path_factory.mktemp("cache"))
    yield answerer
    answerer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, answer):
    found = tmp_path_factory.mktemp("hostile")
    prepare(found, answer)
    return found


@pytest.mark.parametrize("first", range(0, IN_ALL, EACH))
def test_every_hostile_input_is_answered(folder, answer, first):
    _check(range(first, first + EACH), folder, answer)


def test_what_was_a_fault_is_answered(folder, answer):
    _check(FOUND, folder, answer)


@pytest.mark.parametrize("arguments", SOUND, ids=" ".join)
def test_what_hostile_inputs_are_made_from_is_done(folder, answer, arguments):
    found = answer(arguments, folder)
    assert found.code == 0, found.text


@pytest.mark.parametrize(("target", "run", "choice"), EXPORTED)
def test_sound_runs_are_exported(folder, answer, target, run, choice):
    trial = trial_of(folder / run, choice)
    found = answer(["export", run, "--trial", trial, "--to", target, "-o", f"s.{target}"], folder)
    assert found.code == 0, found.text


@pytest.mark.parametrize("number", range(len(RESULTS)))
def test_sound_results_of_tools_are_told(folder, answer, number):
    copied = folder / f"told{number}"
    shutil.copytree(folder / "language", copied)
    RESULTS[number](folder / f"results{number}" / digest_of(copied))
    found = answer(["tell", copied.name, f"results{number}"], folder)
    assert found.code == 0, found.text


def _check(cases, folder, answer):
    ends = {case: answered(case, folder, answer) for case in cases}
    faults = [
        f"case {case}: dse {' '.join(arguments)}: {found.fault}\n{found.text[-2000:]}"
        for case, (arguments, found) in ends.items()
        if found.fault
    ]
    assert not faults, "\n".join(faults)
