"""From the tensors of a checkpoint to the parameters of a network, by `transformers`' own rules.

`transformers` renames, stacks, splits and transposes tensors while it loads them. Here the same
operations run while the network is traced, on tensors without content: the graph then has the
checkpoint's own tensors as initialisers, and what is done to them as nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.errors import CheckpointError, some
from dse.imports.checkpoint import Checkpoint, absent_checkpoint

NUMBERS = ("F64", "F32", "F16", "BF16")
"""Types of parameters as safetensors calls them."""
BY_TORCH = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8",
}  # fmt: skip
COUNTERS = ("position_ids", "num_batches_tracked", "index")
"""Ends of names of buffers that hold integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Origin of one parameter (or of several, made together)."""

    target: str
    """The parameter, the first of several."""
    tensors: Mapping[str, tuple[str, ...]]
    """Names of stored tensors by the pattern of the rule that takes them."""
    converter: Any = None
    """The rule of `transformers`; None: the tensor as it is."""

    @property
    def names(self) -> Iterator[str]:
        """Every stored tensor."""
        for group in self.tensors.values():
            yield from group

    def parameters(self, stored: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """The parameters by name, computed from stored tensors."""
        if self.converter is None:
            return {self.target: stored[next(self.names)]}
        rule = deepcopy(self.converter)
        for pattern, names in self.tensors.items():
            for name in names:
                rule.add_tensor(self.target, name, pattern, stored[name])
        made = rule.convert(self.target, model=network, config=network.config)
        return {name: value[0] if isinstance(value, list) else value
                for name, value in made.items()}  # fmt: skip


def sources(network: Any, checkpoint: Checkpoint) -> tuple[Source, ...]:
    """Origin of every parameter of a network.

    Raises:
        CheckpointError: Parameters that no tensor makes.
    """
    from transformers.conversion_mapping import (  # noqa: PLC0415
        get_model_conversion_mapping,
    )
    from transformers.core_model_loading import (  # noqa: PLC0415
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(network)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {p: rule for rule in converters for p in rule.source_patterns}
    wanted = network.state_dict()
    found: dict[str, tuple[Any, dict[str, list[str]]]] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        target, pattern = rename_source_key(
            name, renamings, converters, network.base_model_prefix, wanted
        )
        if target not in wanted and name in wanted:
            target, pattern = name, None
        if target in wanted:
            rule = by_pattern[pattern] if pattern is not None else None
            entry = found.setdefault(target, (rule, {}))
            entry[1].setdefault(pattern or name, []).append(name)
    return tuple(
        Source(
            target=target,
            tensors={pattern: tuple(names) for pattern, names in groups.items()},
            converter=rule,
        )
        for target, (rule, groups) in found.items()
    )


def aliases(network: Any) -> tuple[tuple[str, ...], ...]:
    """Names that share one parameter: tied weights."""
    groups: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def assembled(
    network: Any,
    stored: Mapping[str, Tensor],
    made_from: Sequence[Source],
    tied: Iterable[tuple[str, ...]],
) -> dict[str, Tensor]:
    """Every parameter and stored buffer of a network, in float32 where it is a float."""
    made: dict[str, Tensor] = {}
    for source in made_from:
        made |= source.parameters(stored, network)
    made = {name: _float32(value) for name, value in made.items()}
    for names in tied:
        value = next((made[name] for name in names if name in made), None)
        if value is not None:
            made |= dict.fromkeys(names, value)
    return made


def check_complete(network: Any, made: Mapping[str, Tensor], where: str) -> None:
    """Raises `CheckpointError` where a parameter is missing or has another shape."""
    missing, different = [], []
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if name not in made:
            missing.append(name)
        elif made[name].shape != parameter.shape:
            different.append(
                f"{name}: expected {list(parameter.shape)}, got {list(made[name].shape)}"
            )
    if different:
        raise CheckpointError(f"{where}: {some(different)}; config.json is of another model")
    if missing:
        raise CheckpointError(f"{where}: the weights lack {some(missing)}")


def shape_checkpoint(network: Any, folder: Path) -> Checkpoint:
    """The tensors that a network would be saved as, in the type that its configuration says."""
    wide = BY_TORCH.get(network.config.dtype, "F32")
    copies = {name for names in aliases(network) for name in names[1:]}
    tensors = {
        name: (wide if value.is_floating_point() else BY_TORCH[value.dtype], tuple(value.shape))
        for name, value in network.state_dict().items()
        if name not in copies
    }
    return absent_checkpoint(folder, tensors)


def check_stored(checkpoint: Checkpoint, made_from: Iterable[Source]) -> None:
    """Raises `CheckpointError` where a parameter would be made of codes instead of numbers.

    Codes of fewer bits mean nothing without their scales, which no parameter takes.
    """
    for source in made_from:
        for name in source.names:
            tensor = checkpoint.tensors[name]
            if tensor.dtype not in NUMBERS and not name.endswith(COUNTERS):
                raise CheckpointError(
                    f"{checkpoint.folder / tensor.file}: {name} is stored as {tensor.dtype}: the "
                    "weights are quantised already; expected a checkpoint in float32, float16 or "
                    "bfloat16 (give the unquantised one)"
                )


def _float32(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value
