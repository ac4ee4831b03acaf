"""The writing of a device with its runtime, shared by the options of all commands."""

from __future__ import annotations

DEVICE_RUNTIME = "DEVICE[:RUNTIME]"
"""Names, or YAML files: `h100-sxm`, `h100-sxm:vllm`, `mine.yaml:torch-compile`."""
