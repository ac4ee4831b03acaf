"""`--dim NAME=N`: sizes that a model leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dse.graph.ir.graph import Graph

Dim = Annotated[
    list[str] | None,
    typer.Option(
        "--dim", metavar="NAME=N", help="Value of a symbolic dimension; see the model's inputs."
    ),
]


def parsed(given: Sequence[str]) -> dict[str, int]:
    """The sizes that `NAME=N` texts say.

    Raises:
        GraphError: a text that is no such pair.
    """
    from dse.errors import GraphError  # noqa: PLC0415

    dims: dict[str, int] = {}
    for text in given:
        name, _, number = text.partition("=")
        if not (number.isascii() and number.isdigit()):
            raise GraphError(f"--dim {text}: expected NAME=N with a whole number N")
        if dims.setdefault(name, int(number)) != int(number):
            raise GraphError(f"--dim {text}: {name} is {dims[name]} already; give one value")
    return dims


def check_names(graph: Graph, given: Mapping[str, int]) -> None:
    """Raises `GraphError` for a name that the graph does not have."""
    from dse.errors import GraphError, nearest  # noqa: PLC0415
    from dse.graph.onnx.dimension import choices, dimensions  # noqa: PLC0415

    names = dimensions(graph)
    for name, size in given.items():
        if name not in names and name not in choices(graph):
            known = ", ".join(names) or "none"
            near = nearest(name, names)
            raise GraphError(f"--dim {name}={size}: no such dimension{near} ({known})")


def bound(
    graph: Graph, given: Mapping[str, int], *, likely: bool = False, partly: bool = False
) -> dict[str, int]:
    """The sizes of every symbolic dimension.

    Where `likely`, those that are not given are at usual values; where `partly`, they may be
    missing.

    Raises:
        GraphError: a name that the graph does not have, or a size that is missing.
    """
    from dse.errors import GraphError  # noqa: PLC0415
    from dse.graph.onnx.dimension import dimensions  # noqa: PLC0415
    from dse.space.init import LIKELY_SIZES  # noqa: PLC0415

    check_names(graph, given)
    names = dimensions(graph)
    dims = {name: LIKELY_SIZES.get(name, 1) for name in names} if likely else {}
    dims |= given
    if not partly and (missing := [name for name in names if name not in dims]):
        wanted = " ".join(f"--dim {name}=N" for name in missing)
        raise GraphError(f"{graph.path or graph.name}: sizes are needed: add {wanted}")
    return dims
