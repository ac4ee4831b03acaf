"""Weights of 2, 4 or 8 bits that an operator of ONNX Runtime holds packed into bytes.

Source: ONNX Runtime 1.31, docs/ContribOperators.md, com.microsoft.MatMulNBits and
com.microsoft.GatherBlockQuantized.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from dse.graph.onnx.convert import MICROSOFT, domain_name

_KINDS = onnx.TensorProto
_BYTES = _KINDS.UINT8
UNSIGNED = {2: _KINDS.UINT2, 4: _KINDS.UINT4, 8: _BYTES}
"""Element type of what is packed into bytes, by bits."""
TYPED = {_KINDS.UINT4: 4, _KINDS.INT4: 4}
"""Bits of types that tables of rows may have instead."""

Layout = tuple[int, tuple[int, ...]]
"""Element type and sizes of a constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The weights of one node: `rows` of `depth` elements, a scale every `block` of them."""

    node: onnx.NodeProto
    rows: int
    depth: int
    block: int
    bits: int
    kind: int
    """Element type once unpacked, of zero points too where they are packed."""
    zero: int
    """The code of the value zero where no zero points are given."""
    data: str
    scales: str
    zero_points: str
    packs_zero_points: bool
    group_index: str = ""
    """The scale of each element of a row; without one the blocks are in order."""

    @property
    def is_product(self) -> bool:
        """Whether the rows are multiplied and not looked up."""
        return bool(self.node.op_type == "MatMulNBits")

    @property
    def blocks(self) -> int:
        """Scales of a row."""
        return math.ceil(self.depth / self.block)

    @property
    def stored(self) -> int:
        """Elements of a row in the file: the last block of a product is full."""
        return self.blocks * self.block if self.is_product else self.depth

    @property
    def stored_zero_points(self) -> int:
        """Zero points of a row in the file: where they are packed, its last byte is full."""
        if not self.packs_zero_points:
            return self.blocks
        return _whole_bytes(self.blocks, self.bits) * 8 // self.bits

    def layouts(self, constants: Mapping[str, onnx.TensorProto]) -> Iterator[tuple[str, Layout]]:
        """The types of the node's constants once unpacked; each holds the bytes that it held."""
        yield self.data, (self.kind, (self.rows, self.stored))
        kind = constants[self.scales].data_type
        yield self.scales, (kind, (self.rows, self.blocks))
        if self.zero_points:
            kind = constants[self.zero_points].data_type
            kind = self.kind if self.packs_zero_points else kind
            yield self.zero_points, (kind, (self.rows, self.stored_zero_points))


def packed_weight(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Packed:
    """The weights of a MatMulNBits or GatherBlockQuantized node.

    Raises:
        ValueError: they are missing, no constants, of other sizes than the attributes say, of
            other bits than 2, 4 and 8, or in the layout of one device; the message says which.
    """
    inputs = [*node.input, *[""] * (6 - len(node.input))]
    given = {attribute.name: attribute.i for attribute in node.attribute}
    data, scales, zero_points, group_index = inputs[1:5]
    if node.op_type != "MatMulNBits":
        data, scales, zero_points, group_index = inputs[0], inputs[2], inputs[3], ""
    if not (data and scales and node.output):
        raise ValueError("expected weights, scales and an output")
    missing = [n for n in (data, scales, zero_points, group_index) if n and n not in constants]
    if missing:
        raise ValueError(f"needs {', '.join(missing)} as an initializer")
    if given.get("weight_prepacked"):
        raise ValueError(f"weight_prepacked = {given['weight_prepacked']} is for one GPU only")
    kind, dims = constants[data].data_type, tuple(constants[data].dims)
    bits = TYPED.get(kind, given.get("bits", 4))
    if bits not in UNSIGNED or kind not in (_BYTES, *TYPED):
        raise ValueError(f"{bits} bits in {_KINDS.DataType.Name(kind)}; known are 2, 4, 8 bits")
    is_packed = kind == _BYTES
    rows, depth = given.get("N", 0), given.get("K", 0)
    if node.op_type != "MatMulNBits":
        rows, depth = _table(dims, given, bits if is_packed else 8)
    packed = Packed(
        node=node, rows=rows, depth=depth, block=given.get("block_size", 128), bits=bits,
        kind=UNSIGNED[bits] if is_packed else kind,
        zero=2 ** (bits - 1) if is_packed else 0,
        data=data, scales=scales, zero_points=zero_points,
        packs_zero_points=bool(zero_points) and constants[zero_points].data_type == _BYTES,
        group_index=group_index,
    )  # fmt: skip
    if packed.rows < 1 or packed.depth < 1 or packed.block < 1:
        raise ValueError(
            f"{packed.rows} rows of {packed.depth} in blocks of {packed.block}: expected positive "
            "sizes"
        )
    if group_index and packed.packs_zero_points:
        # ONNX Runtime 1.31 takes 8 for every zero point then, whatever they are.
        raise ValueError("g_idx with packed zero points, which ONNX Runtime does not read")
    _check_sizes(packed, constants)
    return packed


def is_packed(node: onnx.NodeProto) -> bool:
    """Whether a node is one of those whose weights are packed."""
    known = node.op_type in ("MatMulNBits", "GatherBlockQuantized")
    return known and domain_name(node.domain) == MICROSOFT


def _table(dims: tuple[int, ...], given: Mapping[str, int], bits: int) -> tuple[int, int]:
    """Rows and depth of a table; `bits` of an element in a stored one of 8."""
    axes = given.get("gather_axis", 0), given.get("quantize_axis", 1)
    if len(dims) != 2 or axes[0] not in (0, -2) or axes[1] not in (1, -1):
        raise ValueError("only rows of a matrix in blocks along the row are known")
    return dims[0], dims[1] * 8 // bits


def _check_sizes(packed: Packed, constants: Mapping[str, onnx.TensorProto]) -> None:
    for name, (kind, sizes) in packed.layouts(constants):
        tensor = constants[name]
        expected, found = math.prod(sizes), math.prod(tensor.dims)
        if tensor.data_type == _BYTES:
            expected = sizes[0] * _whole_bytes(sizes[1], packed.bits)
        elif kind != tensor.data_type:
            raise ValueError(f"{name} is {_KINDS.DataType.Name(tensor.data_type)}")
        if expected != found:
            raise ValueError(
                f"{name} has {found} elements; {packed.rows} rows of {packed.depth} in blocks of "
                f"{packed.block} need {expected}"
            )
    if packed.group_index and math.prod(constants[packed.group_index].dims) < packed.depth:
        raise ValueError(f"{packed.group_index} has fewer than {packed.depth} elements")


def _whole_bytes(count: int, bits: int) -> int:
    return math.ceil(count * bits / 8)
