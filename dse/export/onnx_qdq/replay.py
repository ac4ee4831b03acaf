"""A network on the activations that a runtime quantized, so that both agree site by site or not.

A value on the other side of a tie is a step of the format off, and puts others on the other side
behind it: in deep networks two runs that are both right have outputs as far from each other as
from full precision. So every activation is quantized by the emulator and compared, and then taken
from the runtime, so that no difference reaches the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from dse.execute.operators.step import Quantize
from dse.export.base import Recipe
from dse.export.onnx_qdq.difference import as_tensor, mean_square, ties

Arrays = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Path, Arrays], tuple[str, Arrays | str]]
"""A file and what it is fed -> the runtime's name, and outputs or why there are none."""
EXACT = 1e-9
"""Mean square of a difference, over that of the values, below which none is one."""


@dataclass(eq=False, kw_only=True)
class _Replayed:
    """A quantizer that hands on what the runtime made; equal only to itself."""

    quantize: Quantize
    made: Tensor
    errors: list[float] = field(default_factory=list)
    """Mean squares of differences over what ties explain, or a shape that does not fit."""

    def __call__(self, x: Tensor) -> Tensor:
        own = self.quantize(x)
        if own.shape != self.made.shape:
            self.errors.append(float("inf"))
            return own
        made = self.made.to(own.dtype)
        allowed = ties(own.dtype) * mean_square(own, x) + EXACT * mean_square(own, 0.0)
        error = mean_square(made, own)
        self.errors.append(error / allowed if error else 0.0)
        return made

    @property
    def agrees(self) -> bool:
        """Whether it was called, and ties explain all differences."""
        return bool(self.errors) and max(self.errors) <= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The emulator and a runtime, one site after the other."""

    sites: int
    off: tuple[str, ...]
    """Sites and outputs that differ by more than ties explain."""


def replay(
    run: Run,
    path: Path,
    arrays: Arrays,
    recipe: Recipe,
    *,
    plain: Mapping[str, Tensor],
    quantizers: Mapping[str, Quantize],
    keys: Sequence[str],
) -> Replay | None:
    """The emulator beside what a runtime makes of every activation of a written model.

    Args:
        run: the runtime, whose values are the same whether they are outputs or not.
        path: the model.
        arrays: the samples as it takes them.
        recipe: the recipe, with the same samples.
        plain: outputs in full precision.
        quantizers: the emulator's, at all sites, as the file has them.
        keys: activation sites that are quantized in the file.

    Returns:
        None where there is no site, where one cannot be looked at, in the body of a loop, or
        where the runtime fails.
    """
    model = onnx.load(path, load_external_data=False)
    read = _values_at(model, keys)
    if not read or recipe.samples is None:
        return None
    outputs = [one.name for one in model.graph.output]
    for name in dict.fromkeys(read.values()):
        if name not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    # Beside the model: external data are found by their place.
    with NamedTemporaryFile(dir=path.parent, suffix=".onnx") as file:
        onnx.save(model, file.name)
        _, found = run(Path(file.name), arrays)
    if isinstance(found, str):
        return None
    replayed = {
        key: _Replayed(quantize=quantizers[key], made=as_tensor(found[name]))
        for key, name in read.items()
    }
    with torch.inference_mode():
        wanted = recipe.program.run(recipe.samples, {**quantizers, **replayed}).outputs
    off = [key for key, one in replayed.items() if not one.agrees]
    for name, value in wanted.items():
        allowed = ties(value.dtype) * mean_square(plain[name], value)
        allowed += EXACT * mean_square(value, 0.0)
        if mean_square(as_tensor(found[name]), value) > allowed:
            off.append(name)
    return Replay(sites=len(replayed), off=tuple(off))


def _values_at(model: onnx.ModelProto, keys: Sequence[str]) -> dict[str, str] | None:
    """Names of the values that sites read; None where one is not in the graph itself."""
    nodes = {node.name: node for node in model.graph.node}
    read: dict[str, str] = {}
    for key in keys:
        name, _, operand = key.rpartition("/")
        if name not in nodes or not operand.startswith("in"):
            return None
        read[key] = nodes[name].input[int(operand[2:])]
    return read
