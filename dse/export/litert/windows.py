"""Windows that slide over the two axes of an image, and the zeros around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.export.base import Inexpressible
from dse.graph.ir.graph import Node

SAME, VALID = 0, 1
"""Names of paddings, as the schema numbers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The window of a convolution or pool."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    """Before and after, as ONNX has them: top, left, bottom, right."""

    def padding(self, sizes: Sequence[int]) -> int | None:
        """The name of the padding on an image of two sizes; None where there is none."""
        if not any(self.pads):
            return VALID
        return SAME if self.pads == self._same(sizes) else None

    def _same(self, sizes: Sequence[int]) -> tuple[int, int, int, int]:
        """The pads that SAME means: as few as make the output as large as input over stride."""
        before, after = [], []
        parts = zip(sizes, self.kernel, self.strides, self.dilations, strict=True)
        for size, kernel, stride, dilation in parts:
            reach = (kernel - 1) * dilation + 1
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        return before[0], before[1], after[0], after[1]


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """The window that a node's attributes say.

    Raises:
        Inexpressible: they leave the pads or sizes to be worked out.
    """
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID", b"NOTSET", b"VALID"):
        raise Inexpressible(f"auto_pad is {automatic!r}", instead="explicit pads are written")
    if node.attributes.get("ceil_mode"):
        raise Inexpressible("its sizes are rounded up", instead="ceil_mode 0 is written")
    strides, dilations = (_numbers(node, name, (1, 1)) for name in ("strides", "dilations"))
    pads = _numbers(node, "pads", (0, 0, 0, 0))
    return Window(
        kernel=(int(kernel[0]), int(kernel[1])),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
    )


def _numbers(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    given = node.attributes.get(name) or default
    assert isinstance(given, tuple), "ONNX has lists there"
    return tuple(int(one) for one in given)
