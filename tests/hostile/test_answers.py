"""Whatever comes in: done, or one message; within 10 s of CPU and 2 GB, without a traceback.

The first 2,000 cases of `studies/hostile_inputs`, which runs more of them.
"""

from __future__ import annotations

import pytest

from tests.hostile.answer import Answerer, import_all
from tests.hostile.cases import answered, prepare

IN_ALL = 2_000
EACH = 50
"""Cases a test: many tests, so that processes share them evenly."""
FOUND = (4035, 5628, 6185, 7681, 7886, 8886)
"""Later cases that were faults: Loops without results, domains without opset, damaged studies."""


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


def _check(cases, folder, answer):
    ends = {case: answered(case, folder, answer) for case in cases}
    faults = [
        f"case {case}: dse {' '.join(arguments)}: {found.fault}\n{found.text[-2000:]}"
        for case, (arguments, found) in ends.items()
        if found.fault
    ]
    assert not faults, "\n".join(faults)
