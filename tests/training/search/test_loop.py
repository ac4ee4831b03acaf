"""A whole search without training: losses of a formula, so that what it finds is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from zlib import crc32

import pytest

from dse.explore.problem.progress import silent
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.search.cost import StepPrice, StepPrices
from dse.training.search.described import described
from dse.training.search.loop import Found, MethodSearch
from dse.training.search.points import MethodProblem
from dse.training.search.pool import Pool
from dse.training.search.seed_run import Job, SeedRun
from dse.training.search.write import recommendation
from tests.training.search.spaces import problem

STEPS = 10
NOISE = (0.0, 0.004, -0.002, 0.003, -0.001)


@dataclass(slots=True)
class Formula:
    """A pool whose losses are sums over operands."""

    bonus: Callable[[Method], float] = lambda method: 0.0
    jobs: list[Job] = field(default_factory=list)
    broken: str = ""
    """Digest of the method whose seed 1 diverges."""
    stop_after: int | None = None

    def run(self, jobs: Sequence[Job], done: Callable[[], None] = lambda: None) -> list[SeedRun]:
        found = []
        for job in jobs:
            if self.stop_after is not None and len(self.jobs) >= self.stop_after:
                raise KeyboardInterrupt
            self.jobs.append(job)
            found.append(self._one(job))
            done()
        return found

    def _one(self, job: Job) -> SeedRun:
        apart = described(job.method)
        loss = 1.0 + self.bonus(job.method) + job.seed % 7
        narrow = [one for one in apart.operands.values() if one and "e2m1" in one.format]
        loss += (
            0.01 * len(narrow)
            + NOISE[crc32(f"{apart.digest} {job.seed}".encode()) % len(NOISE)] / 10
        )
        is_broken = apart.digest == self.broken and job.seed % 1000 == 1
        return SeedRun(
            seed=job.seed, first_loss=9.0, loss=None if is_broken else loss,
            diverged_at=3 if is_broken else None, ended_at=None, seconds=0.0,
            losses=(loss,) * STEPS,
        )  # fmt: skip


class Widths:
    """Prices that are sums of bits."""

    def of(self, method: Method) -> StepPrice:
        operands = described(method).operands
        bits = sum(
            one.quantizer.format.element.bits
            for place, one in operands.items()
            if one and place.partition("@")[2] in ("fprop", "dgrad", "wgrad")
            and not place.startswith("accumulator")
        )  # fmt: skip
        return StepPrice(
            step_s=float(bits), low_s=0.9 * bits, high_s=1.1 * bits, energy_j=1.0,
            memory_bytes=100.0, status="native",
        )  # fmt: skip


def search(folder: Path, pool: Formula, found: MethodProblem | None = None) -> Found:
    return MethodSearch(
        problem=found or problem(), prices=cast("StepPrices", Widths()), steps=STEPS,
        folder=folder, pool=cast("Pool", pool), progress=silent,
    ).run()  # fmt: skip


def told(found: Found) -> list[tuple[tuple[str, ...], str]]:
    return [(tuple(one.point.choices.values()), one.source) for one in found.records]


def helped(method: Method) -> float:
    """Four Over Six is worth 0.05."""
    operand = described(method).operands["activation@fprop"]
    return -0.05 if operand is not None and operand.scales == "four_over_six" else 0.0


def test_every_axis_is_turned_alone_before_others(tmp_path: Path) -> None:
    found = search(tmp_path, Formula())
    sources = [one.source for one in found.records]
    assert sources[0] == "named"
    assert sources.count("alone") == 4
    assert sources[: sources.count("alone") + 1] == ["named"] + ["alone"] * 4
    axes = {(one.variable, one.after): one.mean for one in found.sensitivity}
    assert set(axes) == {
        ("wgrad_grid", "mxfp8"), ("wgrad_grid", "bf16"), ("dgrad_gradient", "nearest"),
        ("fprop_activation", "four over six"),
    }  # fmt: skip


def test_what_helps_is_found_chosen_and_explained(tmp_path: Path) -> None:
    """At the step time of the start only Four Over Six helps, by 0.05, and others cost time."""
    found = search(tmp_path, Formula(bonus=helped))
    assert found.chosen.point.choices["fprop_activation"] == "four over six"
    assert found.chosen.price.step_s == found.beside.price.step_s
    change = next(one for one in found.ablation if one.variable == "fprop_activation")
    assert change.base == found.chosen.trial
    assert change.mean == pytest.approx(0.05, abs=0.002)
    answer = recommendation(found)
    assert (answer.verdict, answer.trial) == ("better", found.chosen.trial)
    assert answer.mean == pytest.approx(-0.05, abs=0.002)


def test_a_choice_that_does_not_hold_on_other_seeds_is_not_recommended(tmp_path: Path) -> None:
    @dataclass(slots=True)
    class Fickle(Formula):
        def _one(self, job: Job) -> SeedRun:
            self.bonus = helped if job.split == "search" else (lambda method: -helped(method))
            return Formula._one(self, job)

    answer = recommendation(search(tmp_path, Fickle()))
    assert answer.verdict == "worse"
    assert (answer.trial, answer.name) == (answer.beside_trial, "nvfp4")


def test_search_and_report_use_other_seeds(tmp_path: Path) -> None:
    pool = Formula()
    search(tmp_path, pool)
    seeds = {split: {job.seed for job in pool.jobs if job.split == split}
             for split in ("search", "report")}  # fmt: skip
    assert (len(seeds["search"]), len(seeds["report"])) == (2, 3)
    assert not seeds["search"] & seeds["report"]


def test_a_diverging_seed_ends_its_method_and_not_the_search(tmp_path: Path) -> None:
    found = problem()
    turned = found.point({**found.start.choices, "wgrad_grid": "bf16"})
    ended = search(tmp_path, Formula(broken=turned.digest))
    record = next(one for one in ended.records if one.point.digest == turned.digest)
    assert record.search.diverged == 1
    assert record.report is None
    assert turned.digest not in {one.point.digest for one in ended.front}


def test_the_front_is_what_nothing_dominates_on_the_report(tmp_path: Path) -> None:
    found = search(tmp_path, Formula(bonus=helped))
    values = [one.values(("gap", "step_s"), reported=True) for one in found.front]
    for first, second in itertools.permutations(values, 2):
        assert not all(a <= b for a, b in zip(first, second, strict=True))
    steps = [step for _, step in values]
    assert steps == sorted(steps)


@pytest.mark.parametrize("stop_after", [1, 5, 17])
def test_a_search_that_is_interrupted_goes_on_as_it_would_have(
    tmp_path: Path, stop_after: int
) -> None:
    whole = search(tmp_path / _made(tmp_path, "whole"), Formula(bonus=helped))
    folder = tmp_path / _made(tmp_path, "torn")
    with pytest.raises(KeyboardInterrupt):
        search(folder, Formula(bonus=helped, stop_after=stop_after))
    again = search(folder, Formula(bonus=helped))
    assert told(again) == told(whole)


def _made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def test_a_method_that_is_clearly_worse_is_told_and_left(tmp_path: Path) -> None:
    @dataclass(slots=True)
    class Ending(Formula):
        def _one(self, job: Job) -> SeedRun:
            found = Formula._one(self, job)
            if job.rival is None:
                return found
            return SeedRun(
                seed=found.seed, first_loss=9.0, loss=None, diverged_at=None, ended_at=4,
                seconds=0.0, losses=(3.0,) * 4,
            )  # fmt: skip

    pool = Ending()
    found = search(tmp_path, pool)
    ended = [one for one in found.records if one.rival is not None]
    assert ended
    for one in ended:
        rivals = {other.trial: other for other in found.records}
        assert rivals[cast("int", one.rival)].price.step_s <= one.price.step_s
        assert one.estimate is not None
        assert one.report is None
        assert sum(job.folder.name == one.point.digest for job in pool.jobs) == 1


def test_bf16_is_the_reference(tmp_path: Path) -> None:
    found = search(tmp_path, Formula())
    assert found.reference.point.method == load_method("bf16")
    assert found.reference.search.mean == 0
