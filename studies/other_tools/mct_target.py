"""The description of a target that MCT takes, with the widths of weights that a task allows."""

from __future__ import annotations

from typing import Any

BITS = (8, 4)
"""Of weights."""


def restricted(node: object) -> object:
    """A target description without the weight widths that the task does not allow."""
    if isinstance(node, dict):
        found = {key: restricted(value) for key, value in node.items()}
        options: Any = found.get("quantization_configurations")
        if options is not None:
            found["quantization_configurations"] = [o for o in options if allowed(o)] or options
        return found
    if isinstance(node, list | tuple):
        return [restricted(value) for value in node]
    return node


def allowed(option: dict) -> bool:
    """Whether a quantization option's kernel width is one of the task's."""
    kernel = option["attr_weights_configs_mapping"].get("kernel_attr")
    return kernel is None or kernel["weights_n_bits"] in BITS
