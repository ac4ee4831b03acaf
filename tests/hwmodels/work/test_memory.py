from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.formats import catalog
from hwmodels.work.memory import Liveness, is_activation, peak_bytes
from hwmodels.work.work import Operand, RegionWork, Work


def _chain(sizes: list[int], outputs: tuple[str, ...] = ()) -> Work:
    """Regions 0, 1, ...; region i reads value i and writes value i + 1 of `sizes` 16-bit
    elements.
    """
    values = [Operand(name="input", value=str(i), shape=(n,)) for i, n in enumerate(sizes)]
    return Work(
        name="chain",
        regions=tuple(
            RegionWork(
                name=str(i), kind="other", role="", ops=(), reads=(values[i],),
                writes=(values[i + 1],),
            )
            for i in range(len(sizes) - 1)
        ),
        outputs=outputs,
    )  # fmt: skip


def test_a_chain_holds_two_neighbours_at_a_time() -> None:
    """Values of 10, 20, 5 elements: 2 x (10 + 20) bytes in the first step, 2 x 25 later."""
    assert peak_bytes(_chain([10, 20, 5])) == 60


def test_an_output_stays_to_the_end() -> None:
    """Value 1 (20 elements) is an output: the last step holds 20 + 5 + 30."""
    assert peak_bytes(_chain([10, 20, 5, 30], outputs=("1",))) == 2 * (20 + 5 + 30)


def test_no_regions_need_no_memory() -> None:
    assert peak_bytes(Work(name="empty", regions=(), outputs=())) == 0


def _brute_force(work: Work) -> int:
    """The definition, step by step."""
    steps = range(len(work.regions))
    bytes_of = {
        o.value: o.bytes for r in work.regions for o in (*r.reads, *r.writes) if is_activation(o)
    }
    alive = dict.fromkeys(steps, 0)
    for value, size in bytes_of.items():
        writers = [i for i in steps if any(o.value == value for o in work.regions[i].writes)]
        readers = [i for i in steps if any(o.value == value for o in work.regions[i].reads)]
        last = len(work.regions) - 1 if value in work.outputs else max(readers + writers)
        for step in range(writers[0] if writers else 0, last + 1):
            alive[step] += size
    return max(alive.values())


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=12), st.integers(0, 11))
def test_liveness_of_chains_agrees_with_the_definition(sizes: list[int], output: int) -> None:
    work = _chain(sizes, outputs=(str(min(output, len(sizes) - 1)),))
    assert peak_bytes(work) == _brute_force(work)


def test_liveness_of_a_network_agrees_with_the_definition(llama: Callable[..., Work]) -> None:
    work = llama(layers=3, tokens=32)
    assert peak_bytes(work) == _brute_force(work)


def test_many_assignments_at_once(llama: Callable[..., Work]) -> None:
    liveness = Liveness.of(llama(layers=2))
    sizes = np.random.default_rng(0).integers(1, 99, (5, len(liveness.values))).astype(float)
    together = liveness.alive(sizes).max(axis=-1)
    assert together.tolist() == [liveness.peak(row) for row in sizes]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bf16", 4096 * 4096 * 2),
        # 4-bit codes, one e4m3 scale per 16 along K, one fp32 scale
        ("nvfp4", 4096 * 4096 // 2 + 4096 * 4096 // 16 + 4),
        ("int4_g128", 4096 * 4096 // 2 + 4096 * 4096 // 128 * 2),
        ("e4m3_channel", 4096 * 4096 + 4096 * 4),
    ],
)
def test_weights_count_their_scales(name: str, expected: int) -> None:
    weight = Operand(
        name="weight", value="w", shape=(4096, 4096), contraction_axes=(0,),
        quantizer=catalog.quantizer(name), is_weight=True,
    )  # fmt: skip
    assert weight.bytes == expected
