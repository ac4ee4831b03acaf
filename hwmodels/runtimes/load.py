"""Runtime files: YAML to `Runtime`, all errors at once with field path and file name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from hwmodels.errors import RuntimeModeError
from hwmodels.formats.quantizer import Granularity, Timing
from hwmodels.runtimes.runtime import (
    ArchitectureRange,
    KernelMode,
    OperandLayout,
    Pieces,
    Placement,
    Runtime,
)
from hwmodels.work.cost import Status
from hwmodels.work.work import OperandName, OpKind
from hwmodels.yaml_file import Entry, Shelf, loaded, names_in, read_yaml, validated

RUNTIME_FOLDER = Path(__file__).parent
RUNTIMES = Shelf(what="runtime", folder=RUNTIME_FOLDER, error=RuntimeModeError)


class LayoutEntry(Entry):
    """Formats that a kernel accepts for an operand; an absent list accepts anything."""

    element: tuple[str, ...] = Field(min_length=1)
    granularity: tuple[Granularity, ...] = ()
    group: tuple[int, ...] = ()
    scale: tuple[str, ...] = ()
    timing: tuple[Timing, ...] = ()
    zero_point: bool | None = None


class ArchitectureEntry(Entry):
    """Architectures of a family; without `max` every later one too."""

    family: str
    min: float = 0.0
    max: float = float("inf")


class ModeEntry(Entry):
    """One kernel."""

    name: str
    ops: tuple[OpKind, ...] = Field(min_length=1)
    operands: dict[OperandName, LayoutEntry]
    compute: tuple[str, str]
    accumulator: str
    output: str = "bf16"
    status: Status = "native"
    architectures: tuple[ArchitectureEntry, ...] = ()
    align: dict[str, int] = Field(default_factory=dict)
    efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    source: str
    """A citation, or `unverified`."""
    note: str = ""


class PiecesEntry(Entry):
    """An op that is several kernels: how many, and how often its operands move in all."""

    kernels: int = Field(gt=0)
    passes: float = Field(gt=0)
    channel_kernels: int = Field(default=0, ge=0)


class RuntimeFile(Entry):
    """A runtime file. `RuntimeFile.model_json_schema()` is its JSON schema."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    version: str
    placement: Placement
    every_combination: bool = False
    epilogue: tuple[str, ...] = ()
    bias_kernel: tuple[OpKind, ...] = ()
    pieces: dict[str, PiecesEntry] = Field(default_factory=dict)
    runs_as_written: bool = False
    fuses_pointwise: bool = False
    fuses_shared_input: bool = False
    quantize_into: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    takes_expanded_masks: bool = True
    switch_cycles: float = Field(default=0.0, ge=0)
    peer_all_reduce: bool = False
    source: str
    modes: tuple[ModeEntry, ...] = ()


def runtime_names() -> tuple[str, ...]:
    """Names of the shipped runtimes."""
    return names_in(RUNTIME_FOLDER)


def load_runtime(name_or_path: str | Path) -> Runtime:
    """The runtime of that name, or of that YAML file.

    Raises:
        RuntimeModeError: An unknown name, or a file with missing or unknown entries; the message
            lists all of them.
    """
    return loaded(RUNTIMES, name_or_path, _read)


def _read(path: Path) -> Runtime:
    entry = validated(RuntimeFile, read_yaml(path, RuntimeModeError), path, RuntimeModeError)
    names = [mode.name for mode in entry.modes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RuntimeModeError(f"{path}: modes: two modes are named {', '.join(twice)}")
    return Runtime(
        name=entry.name,
        title=entry.title,
        version=entry.version,
        placement=entry.placement,
        every_combination=entry.every_combination,
        epilogue=entry.epilogue,
        bias_kernel=entry.bias_kernel,
        pieces={
            detail: Pieces(
                kernels=pieces.kernels,
                passes=pieces.passes,
                channel_kernels=pieces.channel_kernels,
            )
            for detail, pieces in entry.pieces.items()
        },
        runs_as_written=entry.runs_as_written,
        fuses_pointwise=entry.fuses_pointwise,
        fuses_shared_input=entry.fuses_shared_input,
        quantize_into=entry.quantize_into,
        ties=entry.ties,
        takes_expanded_masks=entry.takes_expanded_masks,
        switch_cycles=entry.switch_cycles,
        peer_all_reduce=entry.peer_all_reduce,
        source=entry.source,
        modes=tuple(_mode(mode) for mode in entry.modes),
    )


def _mode(entry: ModeEntry) -> KernelMode:
    return KernelMode(
        name=entry.name,
        ops=entry.ops,
        operands={name: _layout(layout) for name, layout in entry.operands.items()},
        compute=entry.compute,
        accumulator=entry.accumulator,
        output=entry.output,
        status=entry.status,
        architectures=tuple(
            ArchitectureRange(family=range_.family, low=range_.min, high=range_.max)
            for range_ in entry.architectures
        ),
        align=entry.align,
        efficiency=entry.efficiency,
        source=entry.source,
        note=entry.note,
    )


def _layout(entry: LayoutEntry) -> OperandLayout:
    return OperandLayout(
        elements=entry.element,
        granularities=entry.granularity,
        groups=entry.group,
        scales=entry.scale,
        timings=entry.timing,
        zero_point=entry.zero_point,
    )
