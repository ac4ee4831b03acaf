"""A .tflite file: tensors, buffers and operators, by the schema that LiteRT ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import ExportError
from dse.export.litert.places import Grid

IDENTIFIER = b"TFL3"
VERSION = 3
OLDEST_CODES = 127
"""Operators from this number on stand in a newer field alone."""
Array = npt.NDArray[Any]


def schema() -> Any:
    """The generated classes.

    Raises:
        ExportError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ExportError("--to litert needs LiteRT: pip install 'dse[litert]'") from error
    return schema_py_generated


@dataclass(slots=True)
class File:
    """A network of one graph while it is built."""

    s: Any = field(default_factory=schema)
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    _codes: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._buffer(b"")  # that of tensors without data

    def tensor(
        self, name: str, shape: Sequence[int], kind: str, *, grid: Grid | None = None
    ) -> int:
        """A tensor that an operator writes, or an input; its number."""
        return self._add(name, shape, kind, 0, None if grid is None else _scales([grid]))

    def constant(
        self,
        name: str,
        values: Array,
        kind: str,
        *,
        scales: Array | None = None,
        axis: int = 0,
    ) -> int:
        """A stored tensor; its number.

        Args:
            name: unique or not.
            values: numbers; those of INT4 are packed here, the first in the low bits.
            kind: the element type's name in the schema.
            scales: one, or one a slice along `axis`, of codes whose zero is 0.
            axis: see `scales`.
        """
        data = _packed(values) if kind == "INT4" else np.ascontiguousarray(values).tobytes()
        quantization = None
        if scales is not None:
            one = np.atleast_1d(scales).astype(np.float32)
            quantization = (one, np.zeros(len(one), np.int64), axis)
        return self._add(name, values.shape, kind, self._buffer(data), quantization)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        options: str = "",
        **fields: Any,
    ) -> None:
        """One operator: its name in the schema, tensors, and the fields of its options."""
        one = self.s.OperatorT()
        one.opcodeIndex = self._code(getattr(self.s.BuiltinOperator, name), version)
        one.inputs, one.outputs = (np.array(part, np.int32) for part in (inputs, outputs))
        if options:
            content = getattr(self.s, f"{options}T")()
            for field_name, value in fields.items():
                setattr(content, field_name, value)
            one.builtinOptionsType = getattr(self.s.BuiltinOptions, options)
            one.builtinOptions = content
        self.operators.append(one)

    def like(self, tensor: int, suffix: str, shape: Sequence[int]) -> int:
        """A tensor of the same type and codes as another one."""
        given = self.tensors[tensor]
        found = self.tensor(f"{given.name}_{suffix}", shape, "FLOAT32")
        made = self.tensors[found]
        made.type, made.quantization = given.type, given.quantization
        return found

    def is_code(self, tensor: int) -> bool:
        """Whether a tensor holds codes."""
        return self.tensors[tensor].quantization is not None

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(int(size) for size in self.tensors[tensor].shape)

    def packed(self, inputs: Sequence[int], outputs: Sequence[int], name: str) -> bytes:
        """The file."""
        import flatbuffers  # noqa: PLC0415 (an extra)

        graph = self.s.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = (np.array(part, np.int32) for part in (inputs, outputs))
        model = self.s.ModelT()
        model.version, model.description, model.buffers = VERSION, name, self.buffers
        model.subgraphs = [graph]
        model.operatorCodes = [self._operator_code(*key) for key in self._codes]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _add(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        buffer: int,
        quantization: tuple[Array, Array, int] | None,
    ) -> int:
        one = self.s.TensorT()
        one.name, one.shape = name, np.array(shape, np.int32)
        one.type, one.buffer = getattr(self.s.TensorType, kind), buffer
        if quantization is not None:
            found = self.s.QuantizationParametersT()
            found.scale, found.zeroPoint, found.quantizedDimension = quantization
            one.quantization = found
        self.tensors.append(one)
        return len(self.tensors) - 1

    def _buffer(self, data: bytes) -> int:
        one = self.s.BufferT()
        one.data = np.frombuffer(data, np.uint8) if data else None
        self.buffers.append(one)
        return len(self.buffers) - 1

    def _code(self, operator: int, version: int) -> int:
        return self._codes.setdefault((operator, version), len(self._codes))

    def _operator_code(self, operator: int, version: int) -> Any:
        one = self.s.OperatorCodeT()
        one.builtinCode, one.version = operator, version
        one.deprecatedBuiltinCode = min(operator, OLDEST_CODES)
        return one


def _scales(grids: Sequence[Grid]) -> tuple[Array, Array, int]:
    scales = np.array([grid.scale for grid in grids], np.float32)
    return scales, np.array([grid.zero for grid in grids], np.int64), 0


def _packed(codes: Array) -> bytes:
    flat = codes.reshape(-1).astype(np.int8)
    flat = np.pad(flat, (0, flat.size % 2))
    return ((flat[0::2] & 0xF) | (flat[1::2] & 0xF) << 4).astype(np.uint8).tobytes()
