"""A search over methods: every axis alone, combinations, a sampler, the report, the ablation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from dse.explore.problem.progress import Progress, Stage, Status
from dse.explore.study.study import ESTIMATE, RIVAL
from dse.run.training_run import AxisChange
from dse.training.load import REFERENCE, load_method
from dse.training.search.axes import (
    ALONE,
    COMBINED,
    Turned,
    ablation,
    alone,
    combinations,
    sensitivity,
    turned_back,
)
from dse.training.search.cost import StepPrices
from dse.training.search.described import described
from dse.training.search.gaps import Runs, gap
from dse.training.search.points import MethodProblem, Point
from dse.training.search.pool import Pool
from dse.training.search.records import (
    Record,
    by_name,
    chosen_of,
    contenders,
    front_of,
    rival_of,
)
from dse.training.search.seed_run import Job, Rival, SeedRun, margins, windowed
from dse.training.search.split import SplitName, seeds_of
from dse.training.search.study import Asked, MethodStudy

NAMED = "named"
PLANNED = (NAMED, ALONE)
"""Sources of points that run to their end, before any others."""
ROUND = 4
"""Points that the sampler proposes before any of them is told: whoever trains, the same ones."""
PLANNED_ROUND = 12
RUNS = "runs"
"""Folder of runs, one folder a method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The findings of a search."""

    records: tuple[Record, ...]
    front: tuple[Record, ...]
    """On the report's seeds."""
    chosen: Record
    beside: Record
    sensitivity: tuple[AxisChange, ...]
    ablation: tuple[AxisChange, ...]
    reference: Record
    """bf16."""


@dataclass(slots=True, kw_only=True)
class MethodSearch:
    """A search in progress, in a folder whose lock the caller holds."""

    problem: MethodProblem
    prices: StepPrices
    steps: int
    folder: Path
    pool: Pool
    progress: Progress
    runs: int = 0
    """Seeds that were trained or read."""
    elapsed_s: dict[str, float] = field(default_factory=dict)
    _trained: dict[str, dict[int, SeedRun]] = field(default_factory=dict)
    """Runs of the search's seeds by digest."""
    _references: dict[SplitName, Runs] = field(default_factory=dict)
    _margins: tuple[float, ...] = ()

    def run(self) -> Found:
        """Everything, from where an earlier process stopped."""
        effort = self.problem.space.search
        study = MethodStudy(self.folder, self.problem)
        with self._stage("sensitivity"):
            study.plan(self._planned())
            total = 1 + study.waiting(*PLANNED) + study.settled
            self._refer("search", total)
            while study.waiting(*PLANNED):
                self._round(study, study.ask(min(study.waiting(*PLANNED), PLANNED_ROUND)), total)
            changes = sensitivity(self.problem, self._records(study))
        with self._stage("trials"):
            study.plan([(one, COMBINED, "") for one in self._combined(study, changes)])
            total = max(effort.trials, study.settled + study.waiting())
            while asked := self._asked(study):
                self._round(study, asked, total)
        with self._stage("report"):
            records, chosen, beside = self._reported(self._records(study))
        front = front_of(records, self.problem.space.objectives, reported=True)
        with self._stage("ablation"):
            turned = self._ablated(chosen, front)
        return Found(
            records=tuple(records),
            front=tuple(front),
            chosen=chosen,
            beside=beside,
            sensitivity=tuple(changes),
            ablation=tuple(turned),
            reference=self._reference_record(),
        )

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[None]:
        self.progress(Status(stage=stage))
        before = time.monotonic()
        yield
        self.elapsed_s[stage] = round(time.monotonic() - before, 1)

    def _planned(self) -> list[tuple[Point, str, str]]:
        """The named methods and every axis alone, as points, sources and names."""
        space = self.problem.space
        named = [(point, NAMED, name) for name, point in self.problem.named.items()]
        singles = [
            (point, ALONE, "")
            for name, _, point in alone(self.problem)
            if name not in space.quick.fixed and not self.problem.refusal(point)
        ]
        start = (self.problem.start, ALONE, "")
        found: dict[str, tuple[Point, str, str]] = {}
        for one in (*named, start, *singles):
            found.setdefault(one[0].digest, one)
        return list(found.values())

    def _refer(self, split: SplitName, total: int) -> None:
        """Trains bf16 on the seeds of a split."""
        effort = self.problem.space.search
        count = effort.seeds if split == "search" else effort.report_seeds
        seeds = seeds_of(split, count)
        jobs = [self._job(self._reference_point(), split, seed) for seed in seeds]
        found = self._run(jobs, "sensitivity" if split == "search" else "report", 0, total)
        self._references[split] = dict(zip(seeds, found, strict=True))
        if split == "search":
            self._margins = margins(found, self.steps)

    def _reference_point(self) -> Point:
        method = load_method(REFERENCE)
        return Point(choices={}, method=method, digest=described(method).digest)

    def _asked(self, study: MethodStudy) -> list[Asked]:
        """The next round: what is queued, then what the sampler proposes; none at the end."""
        while True:
            queued = study.waiting()
            left = max(self.problem.space.search.trials - study.settled, 0)
            wanted = min(queued or left, ROUND)
            asked = study.ask(wanted) if wanted else []
            if asked or not study.waiting():
                return asked  # where all that were queued are refused, others may be

    def _round(self, study: MethodStudy, asked: Sequence[Asked], total: int) -> None:
        """Trains points and tells the study in their order."""
        stage: Stage = "sensitivity" if asked[0].source in PLANNED else "trials"
        if not asked:
            return  # all of them are refused
        records = self._records(study)
        rivals = {one.trial.number: self._rival(one, records) for one in asked}
        done = study.settled
        seeds = seeds_of("search", self.problem.space.search.seeds)
        first, others = seeds[:1], seeds[1:]
        if all(rival is None for rival in rivals.values()):
            first, others = seeds, ()
        going = list(asked)
        for part in (first, others):
            keyed = [(one, seed) for one in going for seed in part]
            jobs = [
                self._job(one.point, "search", seed, rival=rivals[one.trial.number])
                for one, seed in keyed
            ]
            for (one, seed), run in zip(keyed, self._run(jobs, stage, done, total), strict=True):
                self._trained.setdefault(one.point.digest, {})[seed] = run
            going = [one for one in going if not self._ended(one)]
        for one in asked:
            self._tell(study, one, rivals[one.trial.number])

    def _rival(self, asked: Asked, records: Sequence[Record]) -> Record | None:
        """The method that a proposal has to keep up with; planned ones run to their end."""
        if asked.source in PLANNED:
            return None
        return rival_of(records, self.prices.of(asked.point.method))

    def _ended(self, asked: Asked) -> bool:
        runs = self._trained[asked.point.digest].values()
        return any(run.ended_at is not None for run in runs)

    def _tell(self, study: MethodStudy, asked: Asked, rival: Record | None) -> None:
        runs = self._trained[asked.point.digest]
        ended = next((run for run in runs.values() if run.ended_at is not None), None)
        if ended is not None and rival is not None:
            behind = windowed(ended.losses)
            behind -= windowed(rival.runs[ended.seed].losses[: len(ended.losses)])
            study.end(asked, estimate=rival.search.mean + behind, rival=rival.trial)
            return
        price = self.prices.of(asked.point.method)
        record = Record(
            trial=asked.trial.number, source=asked.source, name="", point=asked.point,
            price=price, runs=runs, search=gap(runs, self._references["search"]),
        )  # fmt: skip
        study.tell(asked, record.values(self.problem.space.objectives))

    def _job(
        self, point: Point, split: SplitName, seed: int, *, rival: Record | None = None
    ) -> Job:
        found = None
        if rival is not None and len(rival.runs[seed].losses) == self.steps:
            found = Rival(losses=rival.runs[seed].losses, margins=self._margins)
        return Job(
            folder=self.folder / RUNS / point.digest, method=point.method, split=split, seed=seed,
            steps=self.steps, rival=found,
        )  # fmt: skip

    def _run(self, jobs: Sequence[Job], stage: Stage, done: int, total: int) -> list[SeedRun]:
        """Runs of jobs; the progress counts runs of the round beside methods."""
        ended = 0

        def told() -> None:
            nonlocal ended
            ended += 1
            self.runs += 1
            note = f"run {ended} of {len(jobs)}"
            self.progress(Status(stage=stage, done=done, total=total, note=note))

        return self.pool.run(jobs, told)

    def _records(self, study: MethodStudy) -> list[Record]:
        """Everything that was told, with its runs read where an earlier process made them."""
        return [self._record(study, trial) for trial in study.told()]

    def _record(self, study: MethodStudy, trial: FrozenTrial) -> Record:
        point = study.point(trial)
        rival = trial.user_attrs.get(RIVAL)
        runs: Runs = {}
        if rival is None:
            runs = self._search_runs(point)
        return Record(
            trial=trial.number,
            source=str(trial.user_attrs["source"]),
            name=str(trial.user_attrs.get("name", "")),
            point=point,
            price=self.prices.of(point.method),
            runs=runs,
            search=gap(runs, self._references["search"]),
            rival=rival,
            estimate=trial.user_attrs.get(ESTIMATE),
        )

    def _search_runs(self, point: Point) -> Runs:
        """Runs of a method on the search's seeds: from memory, from files, or again."""
        seeds = seeds_of("search", self.problem.space.search.seeds)
        known = self._trained.setdefault(point.digest, {})
        if missing := [seed for seed in seeds if seed not in known]:
            jobs = [self._job(point, "search", seed) for seed in missing]
            known.update(zip(missing, self.pool.run(jobs), strict=True))
        return known

    def _combined(self, study: MethodStudy, changes: Sequence[AxisChange]) -> list[Point]:
        """Axes that helped alone, together: on the start and on the best named methods."""
        named = sorted(
            (one for one in self._records(study) if one.name and one.is_whole),
            key=lambda one: one.search.mean,
        )
        bases = {
            one.digest: one for one in (self.problem.start, *(one.point for one in named[:2]))
        }
        return combinations(self.problem, changes, list(bases.values()))

    def _reported(self, records: Sequence[Record]) -> tuple[list[Record], Record, Record]:
        """All records, those that may be on the front on the report's seeds, too."""
        space = self.problem.space
        whole = [one for one in records if one.is_whole]
        named = by_name(whole) or {REFERENCE: min(whole, key=lambda one: one.search.mean)}
        wished = space.beside if space.beside in named else None
        beside = named[wished] if wished else min(named.values(), key=lambda one: one.search.mean)
        chosen = chosen_of(records, beside)
        wanted = contenders(
            records, space.objectives, chosen=chosen, count=space.search.contenders
        )
        self._refer("report", len(wanted) + 1)
        found = self._report_runs([one.point for one in wanted], "report")
        references = self._references["report"]
        done = {
            one.trial: replace(
                one,
                report=gap(found[one.point.digest], references),
                report_runs=found[one.point.digest],
            )
            for one in wanted
        }
        every = [done.get(one.trial, one) for one in records]
        return every, done[chosen.trial], done[beside.trial]

    def _report_runs(self, points: Iterable[Point], stage: Stage) -> Mapping[str, Runs]:
        """Runs of methods on the report's seeds, by digest."""
        seeds = seeds_of("report", self.problem.space.search.report_seeds)
        keyed = [(point.digest, seed, point) for point in points for seed in seeds]
        jobs = [self._job(point, "report", seed) for _, seed, point in keyed]
        found: dict[str, dict[int, SeedRun]] = {}
        total = len(keyed) // len(seeds)
        runs = self._run(jobs, stage, 0, total)
        for (digest, seed, _), run in zip(keyed, runs, strict=True):
            found.setdefault(digest, {})[seed] = run
        self.progress(Status(stage=stage, done=total, total=total))
        return found

    def _ablated(self, chosen: Record, front: Sequence[Record]) -> list[AxisChange]:
        """Axes of the chosen method, and of others of the front, turned back one by one."""
        count = self.problem.space.search.ablations
        every = {one.trial: one for one in (chosen, *front) if one.holds}
        about = list(every.values())[:count]
        points = {
            point.digest: point
            for one in about
            for _, point in turned_back(self.problem, one.point)
            if not self.problem.refusal(point) and point.digest != one.point.digest
        }
        runs = self._report_runs(points.values(), "ablation")
        turned = {
            digest: Turned(runs=found, price=self.prices.of(points[digest].method))
            for digest, found in runs.items()
        }
        return [change for one in about for change in ablation(self.problem, one, turned)]

    def _reference_record(self) -> Record:
        point = self._reference_point()
        runs, report = self._references["search"], self._references["report"]
        return Record(
            trial=-1, source="reference", name=REFERENCE, point=point,
            price=self.prices.of(point.method), runs=runs, search=gap(runs, runs),
            report=gap(report, report), report_runs=report,
        )  # fmt: skip
