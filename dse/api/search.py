"""`dse.search` for programs: the command line's main job as one function.

A program can give what a file only names: arrays for data, a function for quality, objects for
devices, formats and spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from optuna.samplers import BaseSampler

from dse.api.given import Candidate, Data, mode_of, ranks_of, samples_of, source_of
from dse.api.loaded import LoadedModel
from dse.data import ZOO_PREFIX
from dse.errors import SpaceError
from dse.evaluate.metric import Metric, Run
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.measure.session import prepare
from dse.explore.problem.progress import Progress, silent
from dse.explore.run import Overrides, default_folder, overridden, parse_targets
from dse.explore.study.methods import sampler_name
from dse.model import open_model
from dse.result import Front
from dse.space.init import Draft, space_text
from dse.space.load import load_space, parse_space, validated
from dse.space.native import ranges_of
from dse.space.schema import Rule, Space, Target, named_apart
from dse.zoo.split import Split
from hwmodels.devices.device import Device

SpaceLike = Space | str | Path | Mapping[str, Any] | Sequence[Candidate]
Evaluate = Callable[[Run, Split], Any] | Metric
ORIGIN = "dse.search"
"""Name in errors of a space that is in no file."""


def search(
    model: str | Path | LoadedModel | None,
    space: SpaceLike,
    *,
    data: Data = None,
    evaluate: Evaluate | None = None,
    goal: Literal["maximise", "minimise"] = "maximise",
    targets: Sequence[str | Device | Target] = (),
    objectives: Sequence[str] = (),
    constraints: Sequence[str] = (),
    trials: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    compute: Literal["cpu", "cuda"] = "cpu",
    memory_bytes: int | None = None,
    sampler: BaseSampler | None = None,
    parallelism: Parallelism | None = None,
    progress: Progress = silent,
) -> Front:
    """Search which formats the parts of a model can take, and give the front.

    Args:
        model: what `dse.load` takes or gave; None: as the space says.
        space: a space (an object, a file, or what a file would say as a mapping), or only the
            candidates of every region, e.g. `["bf16", "w8a8_fp8", quantizer]`; the first is what
            a region falls back to.
        data: where samples come from, as in a space file; arrays named as the graph's inputs
            plus `labels`, as the graph takes them, which are dealt to three splits; or the
            splits. None: as the space says.
        evaluate: (run, data) -> a score, or one a sample: quality instead of the divergence from
            full precision. `run(inputs)` gives the quantized network's first output, `data` has
            `inputs` and `labels`. It is called for every assignment; what it raises, or NaN, marks
            the trial failed.
        goal: which way the score improves.
        targets: what to price it on: names as `device` or `device:runtime`, devices (under
            their own runtime), or both as targets.
        objectives: columns to minimise; the first is `quality_loss`.
        constraints: as `weight_bytes<=2e9`, besides the space's.
        trials: assignments to measure.
        seed: same seed, same front.
        out: the run folder; `runs/<space>-<time>` by default.
        resume: continue the run in `out`.
        compute: where the network runs.
        memory_bytes: that this process may take on the CPU; None: what the machine has.
        sampler: an Optuna sampler that proposes assignments, instead of the space's method. It is
            taken as it is: whether a resumed search repeats itself is up to its seed and state.
        parallelism: who takes part: workers, a Ray cluster, a shared study. With workers,
            `evaluate` must be a function at the top level of a module.
        progress: told of every step.

    Raises:
        DseError, HardwareError: something in the input is wrong.
    """
    if isinstance(model, LoadedModel):
        model = model.source
    devices = {t.name: t for t in targets if isinstance(t, Device)}
    overrides = Overrides(
        data=source_of(data),
        objectives=tuple(objectives),
        constraints=tuple(constraints),
        trials=trials,
        seed=seed,
    )
    wanted = _targets(targets)
    chosen, origin, folder = _space(
        model, space, overrides, targets=wanted, devices=devices, ranks=ranks_of(data)
    )
    splits = samples_of(data)
    metric = evaluate
    if metric is not None and not isinstance(metric, Metric):
        metric = Metric(function=metric, goal=goal)
    where = Path(out) if out is not None else default_folder(origin)
    if sampler is not None:
        chosen = overridden(chosen, Overrides(method=sampler_name(sampler)))
    session = prepare(
        chosen,
        origin=origin,
        folder=folder,
        compute=compute,
        memory_bytes=memory_bytes,
        splits=splits,
        metric=metric,
        devices=devices,
        sampler=sampler,
    )
    run(session, where, resume=resume, parallelism=parallelism, progress=progress)
    return Front.read(where)


def _targets(targets: Sequence[str | Device | Target]) -> tuple[Target, ...]:
    try:
        return named_apart(tuple(_target(target) for target in targets))
    except ValueError as error:
        raise SpaceError(f"{ORIGIN}: targets: {error}") from error


def _target(target: str | Device | Target) -> Target:
    if isinstance(target, Target):
        return target
    if isinstance(target, Device):
        return Target(device=target.name, runtime=target.default_runtime)
    return parse_targets([target])[0]


def _space(
    model: str | Path | None,
    space: SpaceLike,
    overrides: Overrides,
    *,
    targets: tuple[Target, ...],
    devices: Mapping[str, Device],
    ranks: Mapping[str, int],
) -> tuple[Space, str, Path]:
    """The space, what errors call it, and the folder that its paths are relative to."""
    if isinstance(space, str | Path):
        found, origin, folder = load_space(space), str(space), Path(space).parent
    elif isinstance(space, Space):
        found, origin, folder = space, ORIGIN, Path()
    elif isinstance(space, Mapping):
        content = dict(space) if model is None else {**space, "model": _named(model)}
        found, origin, folder = validated(content, origin=ORIGIN), ORIGIN, Path()
    else:
        around = _around(model, space, overrides, targets=targets, devices=devices, ranks=ranks)
        return around, ORIGIN, Path()
    changes: dict[str, object] = {}
    if model is not None:
        changes["model"] = _named(model)
    if targets:
        changes["targets"] = targets
    return overridden(found.model_copy(update=changes), overrides), origin, folder


def _around(
    model: str | Path | None,
    candidates: Sequence[Candidate],
    overrides: Overrides,
    *,
    targets: tuple[Target, ...],
    devices: Mapping[str, Device],
    ranks: Mapping[str, int],
) -> Space:
    """A space with these candidates everywhere, and sensible defaults for the rest."""
    if model is None or overrides.data is None:
        raise SpaceError(f"{ORIGIN}: candidates alone are no space: give model and data too")
    draft = Draft(
        targets=targets or Draft().targets,
        data=overrides.data,
        objectives=overrides.objectives,
        constraints=overrides.constraints,
        trials=overrides.trials or Draft().trials,
        seed=overrides.seed or 0,
        devices=devices,
    )
    text = space_text(open_model(_named(model), ranks=ranks), _named(model), draft)
    drafted = parse_space(text, origin=ORIGIN)
    use = tuple(mode_of(candidate) for candidate in candidates)
    if not use:
        raise SpaceError(f"{ORIGIN}: expected at least one candidate")
    return drafted.model_copy(update={"candidates": (Rule(use=use),), "ranges": ranges_of(use)})


def _named(path: str | Path) -> str:
    """A path that means the same from any folder; zoo names as they are."""
    text = str(path)
    return text if text.startswith(ZOO_PREFIX) else str(Path(text).resolve())
