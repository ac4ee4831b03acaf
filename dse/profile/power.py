"""Energy and clock of an NVIDIA GPU through its management library, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch


class Meter:
    """Reads one GPU; every figure is None where the library or the counter is missing."""

    def __init__(self, device: torch.device) -> None:
        self._library: Any = None
        self._handle: Any = None
        if device.type != "cuda":
            return
        try:
            library = importlib.import_module("pynvml")
            library.nvmlInit()
        except Exception:
            return
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        try:
            self._handle = library.nvmlDeviceGetHandleByUUID(uuid)
        except library.NVMLError:
            return
        self._library = library

    def energy_mj(self) -> float | None:
        """Millijoules since the driver was loaded (Volta and later)."""
        return self._read(lambda nvml: nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def clock_mhz(self) -> int | None:
        """Clock of the streaming multiprocessors now."""
        return self._read(
            lambda nvml: nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)
        )

    def _read(self, ask: Callable[[Any], int]) -> int | None:
        if self._library is None:
            return None
        try:
            return ask(self._library)
        except self._library.NVMLError:
            return None
