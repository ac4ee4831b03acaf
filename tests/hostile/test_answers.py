"""Whatever comes in: done, or one message; within 10 s of CPU and 2 GB, without a traceback.

200 cases, the same ones every time. `studies/hostile_inputs` runs others, and more.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.answer import import_all
from tests.hostile.cases import CASES, answered, prepare

IN_ALL = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import_all()
    found = tmp_path_factory.mktemp("hostile")
    prepare(found)
    return found


@pytest.mark.parametrize("kind", CASES)
def test_every_hostile_input_is_answered(folder, kind):
    @settings(
        max_examples=IN_ALL * CASES[kind][1] // 100,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def check(seed):
        arguments, found = answered(kind, random.Random(seed), folder)
        assert not found.fault, f"{' '.join(arguments)}: {found.fault}\n{found.text[-3000:]}"

    check()
