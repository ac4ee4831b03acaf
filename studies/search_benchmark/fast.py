"""The quantizers of the benchmark in a handful of torch operations each.

`dse.numerics` covers every format in integer arithmetic, some fifty kernels a tensor on a GPU. The
formats of the benchmark have casts of their own. Each is compared bit by bit with `dse.numerics`
before it is used; what differs anywhere is emulated as usual.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dse.execute.emulate import Emulator, static_state

E4M3_MAX = 448.0
E2M1_MAX = 6.0
E2M1_EXPONENT = 2


class Cast:
    """A quantizer at a site; one object for equal emulators, so that identity is equality."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        self._call = call

    def __call__(self, x: Tensor) -> Tensor:
        return self._call(x)


class Casts:
    """Fast quantizers for emulators, each checked once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: dict[Emulator, Cast] = {}
        self.slow: set[str] = set()
        """Quantizers that `dse.numerics` has to do."""

    def of(self, emulator: Emulator, *, weight: bool) -> Cast:
        """The stand-in of an emulator; weights are quantised once and stay with `dse.numerics`."""
        if emulator not in self._known:
            exact = weight or self._device == "cpu"
            fast = None if exact else _fast(emulator, self._device)
            if not exact and (fast is None or not self._agrees(fast, emulator)):
                self.slow.add(emulator.quantizer.name)
                fast = None
            self._known[emulator] = Cast(fast or (lambda x: emulator(x.cpu()).to(self._device)))
        return self._known[emulator]

    def _agrees(self, fast: Callable[[Tensor], Tensor], emulator: Emulator) -> bool:
        generator = torch.Generator().manual_seed(0)
        shape = [1] * (max(emulator.axes) + 1)
        for axis in emulator.axes:
            shape[axis] = 512
        shape = [8 if size == 1 else size for size in shape]
        x = torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator).exp()
        x[0] = 0.0
        x = x.to(self._device)
        return torch.equal(fast(x), emulator(x.cpu()).to(self._device))


def _fast(emulator: Emulator, device: str) -> Callable[[Tensor], Tensor] | None:
    quantizer = emulator.quantizer
    last = len(emulator.axes) == 1
    match quantizer.format.name:
        case "bf16":
            return lambda x: x.to(torch.bfloat16).to(torch.float32)
        case "e4m3_token" if last:
            return _e4m3_token
        case "nvfp4" if last and quantizer.timing == "dynamic":
            return _nvfp4
        case "mxfp4" if last:
            return _mxfp4
    if quantizer.format.element.name in ("int8", "int4") and emulator.statistics is not None:
        state = static_state(quantizer, emulator.statistics)
        if state.scales is None:
            return None
        element = quantizer.format.element
        scale = state.scales.reshape(()).to(device)
        low, high = float(element.min), float(element.max)
        return lambda x: torch.clamp(torch.round(x / scale), low, high) * scale
    return None


def _e4m3(y: Tensor) -> Tensor:
    return y.to(torch.float8_e4m3fn).to(torch.float32)


def _e2m1(y: Tensor) -> Tensor:
    """Nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to even codes, saturating."""
    size = y.abs().clamp_max(E2M1_MAX)
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.copysign(torch.round(size / step) * step, y)


def _e4m3_token(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / x.new_tensor(E4M3_MAX)
    return _e4m3(torch.where(scale == 0, x * 0, x / scale)) * scale


def _nvfp4(x: Tensor) -> Tensor:
    groups = x.unflatten(-1, (-1, 16))
    largest = groups.abs().amax(-1, keepdim=True)
    level = largest.amax() / x.new_tensor(E2M1_MAX * E4M3_MAX)
    wanted = largest / x.new_tensor(E2M1_MAX) / level
    scale = _e4m3(wanted.clamp_min(2.0**-6))
    return (_e2m1(groups * ((1 / level) / scale)) * (level * scale)).flatten(-2)


def _mxfp4(x: Tensor) -> Tensor:
    groups = x.unflatten(-1, (-1, 32))
    bits = groups.abs().amax(-1, keepdim=True).view(torch.int32)
    exponent = ((bits >> 23) - E2M1_EXPONENT).clamp_min(1)
    scale = (exponent << 23).view(torch.float32)
    return (_e2m1(groups / scale) * scale).flatten(-2)
