"""Calibrated numbers of activations and caches, and what must agree between layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from dse.execute.emulate import Emulator
from dse.export.base import Inexpressible, Refusal
from dse.export.hugging_face.layers import Layers
from dse.export.hugging_face.linears import siblings_of
from dse.export.hugging_face.rows import is_element


def cache_scale(emulator: Emulator) -> Tensor:
    """The scale of a cache of keys or values: (1,) float32.

    Raises:
        Inexpressible: vLLM keeps no such cache.
    """
    quantizer, state = emulator.quantizer, emulator.fixed
    plain = quantizer.rounding == "nearest_even" and not quantizer.transforms
    fits = is_element(quantizer.format.element, "e4m3") and plain
    if not fits or state is None or state.scales is None or state.scales.numel() != 1:
        raise Inexpressible(
            "vLLM keeps keys and values in 16 bits, or in e4m3 with one calibrated scale",
            instead="e4m3_tensor:static is written, or bf16",
        )
    return state.scales.float().reshape(1)


def differing_scales(
    layers: Layers, tensors: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]
) -> Iterable[Refusal]:
    """Layers that runtimes load as one, but which have several scales where it has one.

    Args:
        layers: the network.
        tensors: what is written for each module.
        names: of those tensors that runtimes keep once.
    """
    for group in siblings_of(layers.linears.values()):
        for name in names:
            values = {
                linear.module: float(tensors[linear.module][name])
                for linear in group
                if name in tensors.get(linear.module, {})
            }
            if len(set(values.values())) > 1:
                listed = ", ".join(f"{module} {value:.6g}" for module, value in values.items())
                yield Refusal(
                    reason=f"runtimes load them as one layer with one {name}, and theirs differ "
                    f"({listed})",
                    instead="scales per channel or group without one per tensor are written",
                )
