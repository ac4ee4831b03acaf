"""Sizes of operations on maps, (images, channels, height, width), beside rows and columns."""

from __future__ import annotations

import math

from dse.graph.ir.attribute import integers
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import POOLS

MAP_AXES = 4


def map_sizes(shape: tuple[int, ...]) -> dict[str, int]:
    """N, C, OH, OW of a map that is written; nothing for another tensor."""
    if len(shape) != MAP_AXES:
        return {}
    return dict(zip(("N", "C", "OH", "OW"), shape, strict=True))


def window_sizes(node: Node, read: tuple[int, ...], written: tuple[int, ...]) -> dict[str, int]:
    """The same with kh, kw, sh, sw, of a pool or a reduction over whole images.

    Args:
        node: The pool or reduction.
        read: Shape of what it reads.
        written: Shape of its result.
    """
    if len(read) != MAP_AXES:
        return {}
    if math.prod(written) == math.prod(read[:2]):
        return {**map_sizes((*read[:2], 1, 1)), "kh": read[2], "kw": read[3]}
    window = integers(node, "kernel_shape")
    if node.op_type not in POOLS or len(written) != MAP_AXES or len(window) + 2 != MAP_AXES:
        return {}
    stride = integers(node, "strides") or (1, 1)
    found = zip(("kh", "kw", "sh", "sw"), (*window, *stride), strict=True)
    return map_sizes(written) | dict(found)
