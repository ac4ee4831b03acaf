"""`dse propose --to`: proposals exported, with the script that scores and times them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dse.bench.folder import REFERENCE, RESULTS
from dse.bench.plan import FILE as PLAN
from dse.bench.plan import Plan
from dse.errors import ExportError, WriteError, nearest
from dse.explore.problem.design import Design
from dse.explore.propose import Proposal, propose
from dse.explore.workload import Workload, workload
from dse.export.base import Launchable, Recipe
from dse.export.deliver import deliver
from dse.export.exporters import exporter, refused_by
from dse.export.loop.runtimes import BENCHED, Benched, Model
from dse.export.loop.script import FILE, script
from dse.export.trial import RecipeSource, calibration_feeds
from dse.graph.ir.assignment import Assignment

FULL = Assignment()
"""Nothing quantized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Proposals as a runtime loads them."""

    proposals: tuple[Proposal, ...]
    script: Path
    remarks: tuple[str, ...]
    """Measurements that the script leaves out, with the reason."""


def propose_to(
    run: Path, count: int, out: Path, *, to: str, target: str = "", storage: str | None = None
) -> Delivered:
    """The next assignments to measure, exported, with one script that scores and times each.

    Args:
        run: a run folder.
        count: how many; fewer where the space has no more.
        out: the folder to make.
        to: an exporter whose consumers have a scorer and a benchmark.
        target: label of the run's target to time on; by default the one with a fitting runtime.
        storage: the URL of a shared study whose manifest hides a password.

    Raises:
        ExportError: no such exporter, or one that no script is written for.
        WriteError: `out` has files already, or cannot be written.
        RunError, StorageError: as `dse.explore.propose.propose`.
    """
    exporter(to)
    if to not in BENCHED:
        raise ExportError(
            f"--to {to}: nothing that scores and times what it writes is known to dse"
            f"{nearest(to, BENCHED)} (known: {', '.join(BENCHED)}); propose without --to, and "
            f"export trials with: dse export {run} --trial N --to {to}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WriteError(f"{out}: exists already; choose another -o")
    with _staged(out) as staging:
        delivery = _Delivery(run=run, to=to, target=target, out=out, staging=staging)
        found = propose(run, count, staging, storage=storage, recipient=delivery)
    located = tuple(replace(one, file=out / one.file.name) for one in found)
    return Delivered(proposals=located, script=out / FILE, remarks=tuple(delivery.remarks))


@dataclass(kw_only=True)
class _Delivery:
    """The recipient of proposals that exports them."""

    run: Path
    to: str
    target: str
    out: Path
    staging: Path
    remarks: list[str] = field(default_factory=list)
    _source: RecipeSource | None = None

    @property
    def source(self) -> RecipeSource:
        """The run's model and states, opened once."""
        if self._source is None:
            self._source = RecipeSource.of(self.run, calibration_feeds(self.run))
        return self._source

    def refused(self, assignment: Assignment) -> Mapping[str, str]:
        """Site -> why the exporter cannot say it.

        Raises:
            ExportError: it can say nothing of this model.
        """
        found = refused_by(self.to, self.source.recipe(assignment))
        for one in found:
            if not one.site:
                raise ExportError(f"{self.to}: {one.reason}; {one.instead}")
        return {one.site: f"{one.format}: {one.reason}; {one.instead}" for one in found}

    def write(self, proposals: Sequence[Proposal], design: Design) -> None:
        """Write models, plan and script."""
        benched, work = self._measured_by(design)
        found = {one.digest: design.problem.assignment(one.point) for one in proposals}
        models = [self._exported(name, chosen, benched) for name, chosen in found.items()]
        reference = self._reference(benched)
        tell = shlex.join(["dse", "tell", str(self.run.absolute()), str(self.out.absolute())])
        text = script(
            benched.sections(reference, models, work),
            benched.settings,
            tell=tell,
            remarks=self.remarks,
        )
        path = self.staging / FILE
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | 0o111)
        plan = Plan(
            to=self.to,
            target="" if work is None else work.target.label,
            models={model.name: model.path for model in (reference, *models)},
        )
        (self.staging / PLAN).write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for model in models:
            (self.staging / RESULTS / model.name).mkdir(parents=True)

    def _measured_by(self, design: Design) -> tuple[Benched, Workload | None]:
        """The consumer that measures, and the target to time on; a remark where there is none."""
        runners = BENCHED[self.to]
        targets = [
            one for one in design.costs.targets if not self.target or one.label == self.target
        ]
        fitting = [
            (benched, one.label)
            for benched in runners
            for one in targets
            if one.deployment.runtime.name in benched.runtimes
        ]
        if self.target:
            benched = fitting[0][0] if fitting else runners[0]
            return benched, workload(design, self.target)
        if len(fitting) == 1:
            benched, label = fitting[0]
            return benched, workload(design, label)
        benched = fitting[0][0] if fitting else runners[0]
        names = ", ".join(label for _, label in fitting)
        which = f"several targets run that ({names})" if fitting else "no target of the run is it"
        self.remarks.append(
            f"nothing is timed: {benched.runtimes[0]} would do it, and {which}; name a target: "
            "--target LABEL"
        )
        return benched, None

    def _exported(self, digest: str, assignment: Assignment, benched: Benched) -> Model:
        """The model of a proposal: written, and how it is served."""
        recipe = self.source.recipe(assignment)
        path = f"{digest}{benched.suffix}"
        deliver(recipe, self.to, self.staging / path)
        return Model(name=digest, path=path, options=self._options(recipe, path))

    def _reference(self, benched: Benched) -> Model:
        """The unquantized model: the checkpoint itself, or a file of it."""
        recipe = self.source.recipe(FULL)
        if benched.suffix:
            path = f"{REFERENCE}{benched.suffix}"
            deliver(recipe, self.to, self.staging / path)
            return Model(name=REFERENCE, path=path)
        assert recipe.checkpoint is not None, "the exporter has asked for a folder"
        return Model(name=REFERENCE, path=str(recipe.checkpoint.absolute()))

    def _options(self, recipe: Recipe, path: str) -> tuple[str, ...]:
        """Options that the exporter's server needs behind the model."""
        chosen = exporter(self.to)
        line = chosen.launch(recipe, Path(path)) if isinstance(chosen, Launchable) else ""
        words = shlex.split(line)
        return tuple(words[words.index(path) + 1 :]) if words[:1] == ["vllm"] else ()


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it when the block ends well, and else is removed."""
    try:
        staging = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}")
        staging.mkdir(parents=True)
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror or error}") from error
    try:
        yield staging
        if out.exists():
            out.rmdir()
        os.replace(staging, out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
