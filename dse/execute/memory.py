"""The memory that executing a graph needs, said before it starts."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np

from dse.errors import GraphError
from dse.execute.weights.need import keeps_values
from dse.graph.ir.graph import Dim, Graph, TensorType
from dse.graph.ir.initializer import FileInitializer
from dse.graph.ir.operators import TRANSPARENT
from dse.graph.ir.site import Site
from dse.graph.onnx.shapes import bound_types
from hwmodels.formats.quantizer import Quantizer

GIGA = 1e9
VIEWS = TRANSPARENT - {"Cast", "CastLike"}
"""Operators whose results have the memory of their inputs."""
FLOAT_BYTES = 4
UNPACKED = frozenset({"int2", "int4", "uint2", "uint4", "float4_e2m1fn"})
"""Types that are read into wider ones, wherever they lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """Values kept between forwards while there is room; less of it costs time, no bits."""

    weight_bytes: int = 0
    """Quantized weights."""
    trace_bytes: int = 0
    """Values of full precision, and of earlier assignments, that a changed one starts from."""

    @property
    def bytes(self) -> int:
        """Both."""
        return self.weight_bytes + self.trace_bytes

    def within(self, room_bytes: int) -> Caches:
        """Both, made smaller alike where they do not fit."""
        if self.bytes <= room_bytes:
            return self
        share = max(room_bytes, 0) / self.bytes
        return Caches(
            weight_bytes=int(share * self.weight_bytes), trace_bytes=int(share * self.trace_bytes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that emulated forwards take."""

    weight_bytes: int
    """Constants inside the model file. Those in external files stay there, mapped, and are read
    layer by layer: the operating system drops what is not in use."""
    mapped_bytes: int
    """Constants in external files."""
    layer_bytes: int
    """The largest constant, once more as float32: its quantized copy."""
    activation_bytes: int
    """The most that is alive at one step, 0 where shapes depend on data."""
    folded_bytes: int = 0
    """Bytes computed once from constants: weights that the model stores in fewer bits."""
    learned_bytes: int = 0
    """Roundings learned from data, which stay for the whole run."""
    copies_bytes: int = 0
    """Quantized copies of all weights that one assignment reads."""
    output_bytes: int = 0
    """Distributions that one batch gives out, as float32."""
    waiting_bytes: int = 0
    """The most that is alive in a batch before a step that reads a weight."""
    batches: int = 1
    """Batches of one split at most."""
    splits: int = 1
    """Splits that are measured."""
    caches: Caches = Caches()

    @property
    def total_bytes(self) -> int:
        """Bytes that must fit."""
        constant = self.weight_bytes + self.folded_bytes + self.learned_bytes
        return constant + self.layer_bytes + self.activation_bytes

    @property
    def stored_bytes(self) -> int:
        """Constants, wherever they come from."""
        return self.weight_bytes + self.folded_bytes + self.mapped_bytes

    @property
    def reference_bytes(self) -> int:
        """Distributions of full precision on all batches."""
        return self.splits * self.batches * self.output_bytes

    @property
    def is_large(self) -> bool:
        """Whether a user should know of it: a tenth of what is free or more, caches apart."""
        return self.total_bytes + self.mapped_bytes > available_bytes() / 10

    def __str__(self) -> str:
        """The sentence that a user reads before the work starts."""
        mapped = f", {self.mapped_bytes / GIGA:.2g} GB of weights stay in their files"
        caches = f" and up to {self.caches.bytes / GIGA:.2g} GB for caches"
        return (
            f"will need about {self.total_bytes / GIGA:.2g} GB"
            f"{caches if self.caches.bytes else ''}"
            f"{mapped if self.mapped_bytes else ''}; the machine has "
            f"{available_bytes() / GIGA:.2g} GB free"
        )


def memory_need(graph: Graph, types: Mapping[str, TensorType]) -> Need:
    """The need of one batch, apart from what is kept between forwards.

    Args:
        graph: with weights.
        types: of its values at the sizes of a batch, `shaped`.
    """
    inside = mapped = largest = 0
    for initializer in graph.initializers.values():
        size = _bytes(initializer.type)
        external = isinstance(initializer, FileInitializer) and initializer.external is not None
        external &= initializer.type.dtype not in UNPACKED
        inside, mapped = (inside, mapped + size) if external else (inside + size, mapped)
        largest = max(largest, FLOAT_BYTES * _elements(initializer.type))
    alive = list(_alive(graph, types))
    return Need(
        weight_bytes=inside,
        mapped_bytes=mapped,
        layer_bytes=largest,
        activation_bytes=max((during for _, during in alive), default=0),
        folded_bytes=_folded(graph),
        waiting_bytes=_waiting(graph, (before for before, _ in alive)),
    )


def with_kept(
    need: Need,
    graph: Graph,
    types: Mapping[str, TensorType],
    sites: Mapping[str, Site],
    pairs: Iterable[tuple[str, Quantizer]],
    *,
    batches: int,
    budgets: Caches,
    splits: int = 1,
    distributions: Iterable[str] = (),
    biased: Collection[str] = (),
) -> Need:
    """The need with learned roundings, and with all that may be kept as large as it can get.

    Args:
        need: of one batch.
        graph: with weights.
        types: of its values at the sizes of a batch, `shaped`.
        sites: every site by key.
        pairs: what may stand at which site.
        batches: of how many batches values are kept.
        budgets: the most that caches take in any case.
        splits: how many are measured, of at most so many batches each.
        distributions: values that are compared with those of full precision.
        biased: sites of weights whose product has a bias, which takes corrected means unasked.
    """
    weights = {(k, q) for k, q in pairs if k in sites and sites[k].role == "weight"}
    sizes = {pair: FLOAT_BYTES * _product(sites[pair[0]].shape) for pair in weights}
    values = sum(_bytes(types[v]) for node in graph.nodes for v in node.outputs if v in types)
    caches = Caches(
        weight_bytes=min(budgets.weight_bytes, sum(sizes.values())),
        # As much of earlier assignments as of full precision.
        trace_bytes=min(budgets.trace_bytes, 2 * batches * values),
    )
    learned = sum(
        size
        for (key, quantizer), size in sizes.items()
        if keeps_values(quantizer, corrects=key in biased or quantizer.correction != "auto")
    )
    outputs = [FLOAT_BYTES * _elements(types[value]) for value in distributions if value in types]
    return replace(
        need,
        learned_bytes=learned,
        copies_bytes=sum({key: size for (key, _), size in sizes.items()}.values()),
        output_bytes=sum(outputs),
        batches=batches,
        splits=splits,
        caches=caches,
    )


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


def held_bytes() -> int:
    """Memory that this process holds, without pages of files, which others may have."""
    return sum(
        1024 * int(line.split()[1])
        for line in _lines(Path("/proc/self/status"))
        if line.startswith("RssAnon:")
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def shaped(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, TensorType]:
    """Types of all values at the sizes of a batch; none where they depend on data."""
    dims: dict[str, int] = {}
    for name, sizes in shapes.items():
        declared = graph.types[name].shape or ()
        dims |= {d: n for d, n in zip(declared, sizes, strict=False) if isinstance(d, str)}
    try:
        return bound_types(graph, dims)
    except GraphError:
        return {}


def _waiting(graph: Graph, before: Iterable[int]) -> int:
    """The most that is alive before a node that reads a constant, of bytes before each node."""
    constants = graph.initializers.keys()
    nodes = zip(graph.nodes, before, strict=True)
    return max((size for node, size in nodes if constants & set(node.reads)), default=0)


def _alive(graph: Graph, types: Mapping[str, TensorType]) -> Iterator[tuple[int, int]]:
    """Bytes of the computed values that are alive before and during each node."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last |= dict.fromkeys(node.reads, index)
    dying: dict[int, list[str]] = {}
    for value, index in last.items():
        if value not in graph.initializers and value not in graph.outputs:
            dying.setdefault(index, []).append(value)
    alive = sum(_bytes(types[name]) for name in graph.inputs if name in types)
    for index, node in enumerate(graph.nodes):
        before = alive
        alive += sum(_bytes(types[value]) for value in node.outputs if value in types)
        yield before, alive
        alive -= sum(_bytes(types[value]) for value in dying.get(index, ()) if value in types)


def _folded(graph: Graph) -> int:
    """Bytes of what is computed from constants alone."""
    constant = set(graph.initializers)
    total = 0
    for node in graph.nodes:
        if not constant.issuperset(node.reads):
            continue
        constant.update(node.outputs)
        if node.op_type not in VIEWS:
            total += sum(_bytes(graph.types[v]) for v in node.outputs if v in graph.types)
    return total


def _elements(kind: TensorType) -> int:
    return _product(kind.shape or ())


def _product(shape: Sequence[Dim]) -> int:
    return math.prod(size for size in shape if isinstance(size, int))


def _bytes(kind: TensorType) -> int:
    try:
        width = np.dtype(kind.dtype).itemsize
    except TypeError:
        width = np.dtype(getattr(ml_dtypes, kind.dtype, np.float32)).itemsize
    return _elements(kind) * width
