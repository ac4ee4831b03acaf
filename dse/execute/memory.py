"""What executing a graph needs in memory, said before it starts."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from dse.errors import GraphError
from dse.graph.graph import Graph, TensorType
from dse.graph.initializer import FileInitializer
from dse.graph.shapes import bind

GIGA = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that an emulated forward takes, apart from caches, which shrink to what is left."""

    weight_bytes: int
    """Constants inside the model file. Those in external files stay there, mapped, and are read
    layer by layer: the operating system drops what is not in use."""
    mapped_bytes: int
    """Constants in external files."""
    layer_bytes: int
    """The largest constant, once more as float32: its quantized copy."""
    activation_bytes: int
    """The most that is alive at one step, 0 where shapes depend on data."""

    @property
    def total_bytes(self) -> int:
        """What must fit."""
        return self.weight_bytes + self.layer_bytes + self.activation_bytes

    @property
    def is_large(self) -> bool:
        """Whether a user should know of it: a tenth of what is free, or more."""
        return self.total_bytes + self.mapped_bytes > available_bytes() / 10

    def __str__(self) -> str:
        """What a user reads before the work starts."""
        mapped = f", {self.mapped_bytes / GIGA:.2g} GB of weights stay in their files"
        return (
            f"will need about {self.total_bytes / GIGA:.2g} GB"
            f"{mapped if self.mapped_bytes else ''}; the machine has "
            f"{available_bytes() / GIGA:.2g} GB free"
        )


def memory_need(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Need:
    """The need of one batch.

    Args:
        graph: with weights.
        shapes: sizes of the fed tensors by input name.
    """
    inside = mapped = largest = 0
    for initializer in graph.initializers.values():
        size = _bytes(initializer.type)
        external = isinstance(initializer, FileInitializer) and initializer.is_external
        inside, mapped = (inside, mapped + size) if external else (inside + size, mapped)
        largest = max(largest, 4 * _elements(initializer.type))
    return Need(
        weight_bytes=inside,
        mapped_bytes=mapped,
        layer_bytes=largest,
        activation_bytes=_peak(graph, shapes),
    )


def checked(need: Need, graph: Graph) -> Need:
    """The need, if the machine has that much.

    Raises:
        GraphError: it does not fit; the message has both numbers.
    """
    if need.total_bytes > available_bytes():
        where = graph.path or graph.name
        raise GraphError(
            f"{where}: {need}; use a smaller batch or sequence, or save the model with external "
            "data, which is read layer by layer"
        )
    return need


def available_bytes() -> int:
    """Memory that this process can still take: the system's, its container's or its own limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [
        1024 * int(line.split()[1])
        for line in _lines(Path("/proc/meminfo"))
        if line.startswith("MemAvailable:")
    ]
    group = Path("/sys/fs/cgroup")
    maximum = _lines(group / "memory.max")
    if maximum and maximum[0].isdigit():
        used = _lines(group / "memory.current") or ["0"]
        limits.append(int(maximum[0]) - int(used[0]))
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if own != resource.RLIM_INFINITY:
        limits.append(own)
    return max(0, min(limits))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _peak(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> int:
    """The most bytes of computed values that are alive at one node."""
    dims: dict[str, int] = {}
    for name, sizes in shapes.items():
        declared = graph.types[name].shape or ()
        dims |= {d: n for d, n in zip(declared, sizes, strict=False) if isinstance(d, str)}
    try:
        types = bind(graph, dims)
    except GraphError:
        return 0
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last |= dict.fromkeys(node.reads, index)
    dying: dict[int, list[str]] = {}
    for value, index in last.items():
        if value not in graph.initializers and value not in graph.outputs:
            dying.setdefault(index, []).append(value)
    alive = sum(_bytes(types[name]) for name in graph.inputs if name in types)
    peak = alive
    for index, node in enumerate(graph.nodes):
        alive += sum(_bytes(types[value]) for value in node.outputs if value in types)
        peak = max(peak, alive)
        alive -= sum(_bytes(types[value]) for value in dying.get(index, ()) if value in types)
    return peak


def _elements(kind: TensorType) -> int:
    return math.prod(size for size in kind.shape or () if isinstance(size, int))


def _bytes(kind: TensorType) -> int:
    try:
        width = np.dtype(kind.dtype).itemsize
    except TypeError:
        width = np.dtype(getattr(ml_dtypes, kind.dtype, np.float32)).itemsize
    return _elements(kind) * width
