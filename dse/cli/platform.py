"""Devices and machines, as the options of all commands write them."""

from __future__ import annotations

from enum import StrEnum

DEVICE_RUNTIME = "DEVICE[:RUNTIME]"
"""Names, or YAML files: `h100-sxm`, `h100-sxm:vllm`, `mine.yaml:torch-compile`."""


class Compute(StrEnum):
    """The device on which networks are executed, trained or timed."""

    cpu = "cpu"
    cuda = "cuda"


class ExecutorName(StrEnum):
    """The place of workers."""

    local = "local"
    ray = "ray"
