"""Checkpoints: nested mappings of tensors and plain values as one safetensors file, no pickle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dse.errors import RunError
from dse.files import written_atomically

TENSOR = "tensor"
"""Key of a mapping that stands for a tensor of the file."""
SAVED_EVERY_S = 30.0
"""Seconds between two checkpoints: what a training that is killed does again."""
Step_co = TypeVar("Step_co", covariant=True)


class Stepping(Protocol[Step_co]):
    """A training in progress."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""

    def advance(self) -> Step_co:
        """Takes one step."""


def step_on(
    training: Stepping[Step_co], *, save: Callable[[], None], stop: Callable[[Step_co], bool]
) -> bool:
    """Steps to the end, or until it is stopped; whether the end was reached.

    Args:
        training: Its steps.
        save: Writes a checkpoint: now and then, and before an interruption is passed on.
        stop: Takes what each step gave; whether it was the last of these.

    Raises:
        KeyboardInterrupt: passed on.
    """
    saved = time.monotonic()
    try:
        while not training.done:
            if stop(training.advance()):
                break
            if time.monotonic() - saved > SAVED_EVERY_S:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    return training.done


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes mappings, lists, numbers, texts and tensors."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_apart(content, "", tensors))
    with written_atomically(path) as place:
        save_file(tensors, place, metadata={"content": plain})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content that `write_checkpoint` wrote.

    Raises:
        RunError: the file is torn, or none of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            plain = json.loads((file.metadata() or {})["content"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: no checkpoint of a training: {error}; delete it") from error
    found: dict[str, Any] = _joined(plain, tensors)
    return found


def _apart(content: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(content, Tensor):
        tensors[where] = content.detach().clone().contiguous()
        return {TENSOR: where}
    if isinstance(content, Mapping):
        return {key: _apart(value, f"{where}/{key}", tensors) for key, value in content.items()}
    return content


def _joined(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(content, dict):
        if content.keys() == {TENSOR}:
            return tensors[content[TENSOR]]
        return {key: _joined(value, tensors) for key, value in content.items()}
    return content
