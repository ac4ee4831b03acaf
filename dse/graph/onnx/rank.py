"""The number of axes of inputs that a file declares without a shape.

ONNX Runtime takes their shape from the data of each call. Which operand is a weight and which
sizes multiply follows from ranks here, so they must be known before anything is found in a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from dse.errors import GraphError

SUFFIX = ".rank"
"""Behind an input's name it is a size: `--dim x.rank=3`."""
ANY = "*"
"""Stands for every input that is not named."""
LARGEST = 32
"""Axes that a tensor can have: numpy's limit."""


def give_ranks(graph: onnx.GraphProto, ranks: Mapping[str, int], *, where: str) -> dict[str, int]:
    """The ranks of inputs without a shape, which get one whose sizes are free.

    Args:
        graph: of the model; changed.
        ranks: by name of the input, or `ANY`.
        where: the file, for errors.

    Raises:
        GraphError: an input without a shape that `ranks` does not name.
    """
    told: dict[str, int] = {}
    unknown: list[str] = []
    for value in graph.input:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.HasField("shape"):
            continue
        rank = ranks.get(value.name, ranks.get(ANY))
        if rank is None:
            unknown.append(value.name)
            continue
        told[value.name] = rank
        kind.shape.SetInParent()
        for _ in range(rank):
            kind.shape.dim.add()
    if unknown:
        said = " ".join(f"--dim {name}{SUFFIX}=N" for name in unknown)
        raise GraphError(
            f"{where}: inputs without a shape: {', '.join(unknown)}; give data whose arrays have "
            f"their names (--data FILE.npz), or say how many axes they have: {said} (dims in a "
            "space)"
        )
    return told


def free_sizes(graph: onnx.GraphProto) -> None:
    """Makes declared sizes of -1 and 0, which some converters write, sizes without a name.

    ONNX Runtime takes them as free; two of them side by side contradict each other otherwise.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.ClearField("dim_value")


def ranks_in(dims: Mapping[str, int]) -> dict[str, int]:
    """The ranks that sizes say or imply: `x.rank` is one, and `x.2` an axis of at least three.

    Raises:
        GraphError: a rank that no tensor has.
    """
    found: dict[str, int] = {}
    for key in dims:
        name, _, axis = key.rpartition(".")
        if name and axis.isdecimal() and int(axis) < LARGEST:
            found[name] = max(found.get(name, 0), int(axis) + 1)
    said = {key.removesuffix(SUFFIX): n for key, n in dims.items() if key.endswith(SUFFIX)}
    if wrong := [f"{name}{SUFFIX}={rank}" for name, rank in said.items() if rank > LARGEST]:
        raise GraphError(f"{', '.join(wrong)}: a tensor has at most {LARGEST} axes")
    return found | said


def rank_problems(inputs: Iterable[tuple[str, int | None]], dims: Mapping[str, int]) -> list[str]:
    """The ranks among sizes that are not those of the graph's inputs."""
    return [
        f"{name}{SUFFIX} is {rank}, got {given}"
        for name, rank in inputs
        if (given := dims.get(f"{name}{SUFFIX}", rank)) != rank
    ]
