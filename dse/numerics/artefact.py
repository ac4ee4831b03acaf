"""Calibrated states on disk: one safetensors file with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dse.files import written_atomically
from dse.numerics.grids.errors import StateError
from dse.numerics.grids.state import TENSORS, QuantizerState

VERSION = "1"


def save_states(states: Mapping[str, QuantizerState], path: Path) -> str:
    """Writes the states of sites to `path`; returns their digest."""
    tensors = _flattened(states)
    digest = _digest(tensors)
    sites = {f"site.{index}": site for index, site in enumerate(sorted(states))}
    with written_atomically(path) as place:
        save_file(tensors, place, metadata={"version": VERSION, "digest": digest, **sites})
    return digest


def load_states(path: Path) -> dict[str, QuantizerState]:
    """The states that `save_states` wrote, with the same numbers.

    Raises:
        StateError: The file is missing, torn, of another version, or its digest does not match.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path}: no readable state file ({error})") from error
    if metadata.get("version") != VERSION:
        raise StateError(
            f"{path}: state version {metadata.get('version')}, expected {VERSION}; calibrate again"
        )
    if metadata.get("digest") != _digest(tensors):
        raise StateError(f"{path}: the content does not match its digest; calibrate again")
    sites = [value for key, value in metadata.items() if key.startswith("site.")]
    return {site: _state_of(site, tensors) for site in sorted(sites)}


def states_digest(states: Mapping[str, QuantizerState]) -> str:
    """16 hex digits that are the same for equal states, in every process."""
    return _digest(_flattened(states))


def _flattened(states: Mapping[str, QuantizerState]) -> dict[str, Tensor]:
    tensors = {}
    for site, state in states.items():
        for field in TENSORS:
            value = getattr(state, field)
            if value is not None:
                tensors[f"{site}|{field}"] = value.detach().cpu().contiguous()
        if state.tensor_scale is not None:
            tensors[f"{site}|tensor_scale"] = torch.tensor(state.tensor_scale, dtype=torch.float64)
    return tensors


def _state_of(site: str, tensors: Mapping[str, Tensor]) -> QuantizerState:
    scale = tensors.get(f"{site}|tensor_scale")
    return QuantizerState(
        scales=tensors.get(f"{site}|scales"),
        zero_points=tensors.get(f"{site}|zero_points"),
        offsets=tensors.get(f"{site}|offsets"),
        channel_factors=tensors.get(f"{site}|channel_factors"),
        values=tensors.get(f"{site}|values"),
        output_shift=tensors.get(f"{site}|output_shift"),
        tensor_scale=None if scale is None else float(scale),
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key]
        total.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()[:16]
