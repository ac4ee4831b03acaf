"""A request to a language model as values of a graph's symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dse.errors import GraphError
from dse.graph.ir.graph import Graph
from dse.graph.onnx.dimension import dimensions

NAMES = (
    ("past", "past"),
    ("total", "total"),
    ("batch", "batch"),
    ("seq", "tokens"),
    ("length", "tokens"),
)
"""A part of a dimension's name, and what the dimension then counts; the first that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt, the tokens generated after it, and how many requests decode together."""

    prompt: int
    generate: int
    batch: int = 1

    def prefill_dims(self, graph: Graph, given: Mapping[str, int]) -> dict[str, int]:
        """Sizes of the call that reads one prompt; `given` ones win.

        Raises:
            GraphError: a size that is neither given nor known by its name, or a graph without
                a size for the cache.
        """
        sizes = {"batch": 1, "tokens": self.prompt, "past": 0, "total": self.prompt}
        return _bound(graph, sizes, given)

    def decode_dims(self, graph: Graph, given: Mapping[str, int]) -> dict[str, int]:
        """Sizes of a step half-way through the answer; `given` ones win.

        Raises:
            GraphError: as `prefill_dims`, and where no size is that of several requests.
        """
        past = self.prompt + self.generate // 2
        sizes = {"batch": self.batch, "tokens": 1, "past": past, "total": past + 1}
        found = _bound(graph, sizes, given)
        counted = {name: size for name, size in found.items() if _counts(name) in ("batch", None)}
        if self.batch > 1 and self.batch not in counted.values():
            told = " ".join(f"{name}={size}" for name, size in counted.items())
            raise GraphError(
                f"{graph.path or graph.name}: expected a size that counts {self.batch} requests "
                f"(--batch), got {told or 'none'}; export the model with a symbolic batch, or "
                "leave one of the two out"
            )
        return found


def _bound(graph: Graph, sizes: Mapping[str, int], given: Mapping[str, int]) -> dict[str, int]:
    names = dimensions(graph)
    counted = {name: _counts(name) for name in names}
    where = graph.path or graph.name
    if missing := [name for name in names if name not in given and counted[name] is None]:
        wanted = " ".join(f"--dim {name}=N" for name in missing)
        raise GraphError(f"{where}: sizes are needed that no request gives: add {wanted}")
    if "past" not in counted.values() and "total" not in counted.values():
        raise GraphError(
            f"{where}: has no size for cached positions, so it cannot decode (its sizes: "
            f"{', '.join(names) or 'none'}); --prompt needs a graph with a key-value cache"
        )
    known = {name: sizes[kind] for name, kind in counted.items() if kind is not None}
    return {**known, **{name: given[name] for name in names if name in given}}


def _counts(name: str) -> str | None:
    return next((kind for part, kind in NAMES if part in name.lower()), None)
