"""`dse search`: from what a user names to a finished run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dse.data import check_source, source_ranks
from dse.errors import DataError, SpaceError
from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.explore.measure.session import prepare
from dse.explore.problem.progress import Progress, Status, silent
from dse.explore.problem.records import Record
from dse.model import open_model
from dse.run.folder import continued
from dse.run.read import read_manifest, read_space
from dse.space.init import Draft, space_text
from dse.space.load import load_space, load_targets, parse_space
from dse.space.relocate import located_target
from dse.space.schema import Space, Target, named_apart
from hwmodels.runtimes.platform import split_platform
from hwmodels.yaml_file import SUFFIXES

RUNS = Path("runs")
"""The folder of run folders when no place is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """The command line's additions to a space file; empty means as the file says."""

    targets: tuple[str, ...] = ()
    """`device`, `device:runtime`, or a YAML file with `targets`."""
    data: str | None = None
    objectives: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    """Added to the file's."""
    focus: tuple[str, ...] = ()
    """Added to the file's."""
    trials: int | None = None
    seed: int | None = None
    method: str | None = None
    """Who proposes, without arguments."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Figures of the targets' devices instead of their files', by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A finished search."""

    folder: Path
    front: tuple[Record, ...]


def run_search(
    source: str | Path | None,
    *,
    overrides: Overrides | None = None,
    out: Path | None = None,
    resume: bool = False,
    compute: str = "cpu",
    memory_bytes: int | None = None,
    parallelism: Parallelism | None = None,
    progress: Progress = silent,
) -> SearchResult:
    """Search a space, or a model with sensible defaults.

    Args:
        source: a space file, an ONNX file, a Hugging Face folder or `zoo:<name>`; None continues
            the run in `out` with its own space.
        overrides: what to change in the space.
        out: the run folder; `runs/<space>-<time>` by default.
        resume: continue the run in `out`.
        compute: `cpu` or `cuda`.
        memory_bytes: that this process may take on the CPU; None: what the machine has.
        parallelism: who takes part; this process alone by default.
        progress: told of every step.

    Raises:
        DseError, HardwareError: something in the input is wrong.
    """
    progress(Status(stage="setup"))
    if resume:
        if out is None:
            raise SpaceError("--resume needs --out: the folder of the run to continue")
        continued(out)
    space, origin, folder = _source(source, out, overrides or Overrides())
    out = out or default_folder(origin)
    session = prepare(
        space, origin=origin, folder=folder, compute=compute, memory_bytes=memory_bytes
    )
    front = run(session, out, resume=resume, parallelism=parallelism, progress=progress)
    return SearchResult(folder=out, front=front)


def _source(
    source: str | Path | None, run: Path | None, overrides: Overrides
) -> tuple[Space, str, Path]:
    """As `open_space`; of a run that is continued its own space."""
    if source is not None:
        return open_space(str(source), overrides)
    if run is None:
        raise SpaceError("give a space or a model to search, or the run to continue")
    space, folder = read_space(run)
    return overridden(space, overrides), read_manifest(run).space_file, folder


def default_folder(source: str) -> Path:
    """The folder of a search of `source` that begins now when no place is given."""
    path = Path(source)
    stem = (path.resolve().name if path.is_dir() else path.stem).removeprefix("zoo:")
    return RUNS / f"{stem}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def open_space(
    source: str, overrides: Overrides, *, needs_data: bool = True
) -> tuple[Space, str, Path]:
    """A space with its origin and the folder that its paths are relative to.

    Args:
        source: a space file; or a model, for which one is drafted: with the candidates that its
            annotations name, where it has any.
        overrides: what the command line says.
        needs_data: whether a model without data is an error; otherwise the draft has a gap.

    Raises:
        DataError: a model without data.
        SpaceError: a space that cannot be used.
    """
    if Path(source).suffix in SUFFIXES:
        space = load_space(source)
        return overridden(space, overrides), source, Path(source).parent
    is_model = Path(source).suffix == ".onnx" or Path(source).is_dir()
    if not source.startswith("zoo:") and not is_model:
        raise SpaceError(
            f"{source}: expected a space (.yaml), a model (.onnx), a Hugging Face folder or "
            "zoo:NAME"
        )
    if not overrides.data and needs_data:
        raise DataError(
            f"{source}: a model needs --data (a zoo name, an .npz, a token file, a folder of "
            "images by class, or module:function); or write a space with: dse init"
        )
    if overrides.data:
        check_source(overrides.data)
    model = open_model(source, ranks=source_ranks(overrides.data or ""))
    draft = Draft(
        targets=parse_targets(overrides.targets) or Draft().targets,
        data=overrides.data or "",
        objectives=overrides.objectives,
        constraints=overrides.constraints,
        trials=overrides.trials or Draft().trials,
        seed=overrides.seed or 0,
    )
    text = space_text(model, source, draft)
    space = parse_space(text, origin=source)
    given = Overrides(settings=overrides.settings, focus=overrides.focus)
    return overridden(space, given), source, Path()


def overridden(space: Space, overrides: Overrides) -> Space:
    """The space with what the command line changes."""
    changes: dict[str, object] = {}
    if overrides.targets:
        changes["targets"] = parse_targets(overrides.targets)
    if overrides.settings:
        targets = parse_targets(overrides.targets) or space.targets
        changes["targets"] = tuple(
            target.model_copy(update={"set": {**target.set, **overrides.settings}})
            for target in targets
        )
    if overrides.data is not None:
        changes["data"] = space.data.model_copy(update={"source": overrides.data})
    if overrides.objectives:
        changes["objectives"] = overrides.objectives
    if overrides.constraints:
        changes["constraints"] = (*space.constraints, *overrides.constraints)
    search: dict[str, object] = {
        name: value
        for name, value in (("trials", overrides.trials), ("seed", overrides.seed))
        if value is not None
    }
    if overrides.focus:
        search["focus"] = (*space.search.focus, *overrides.focus)
    if overrides.method is not None:
        search |= {"method": overrides.method, "arguments": {}}
    if search:
        changes["search"] = space.search.model_copy(update=search)
    return space.model_copy(update=changes)


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Targets of `device`, `device:runtime`, or a YAML file that lists them under `targets`.

    Files are relative to the working directory.

    Raises:
        SpaceError: a file that cannot be read, or one target twice.
        DeviceError: a text of another form.
    """
    parsed: list[Target] = []
    for text in texts:
        device, runtime = split_platform(text)
        is_file = runtime is None and Path(device).suffix in SUFFIXES
        listed = load_targets(device) if is_file else None
        parsed += listed or [located_target(Target(device=device, runtime=runtime), Path())]
    try:
        return named_apart(tuple(parsed))
    except ValueError as error:
        raise SpaceError(f"targets {' '.join(texts)}: {error}") from None
