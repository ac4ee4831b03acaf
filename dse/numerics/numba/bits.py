"""32-bit operations for compiled kernels.

numba widens `uint32 + uint32` to 64 bits, which halves the vector width and keeps the compiler
from using 32-bit shifts. These intrinsics emit the one LLVM instruction that is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic


def _binary(instruction: str, number: types.Type) -> Any:
    """An intrinsic for one two-operand LLVM instruction on `number`."""

    def typing(_: Any, left: types.Type, right: types.Type) -> tuple[Any, Callable[..., Any]]:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return number(number, number), emit

    return intrinsic(typing)


def _reinterpret(source: types.Type, target: types.Type) -> Any:
    """An intrinsic that reads the bits of `source` as `target`."""

    def typing(_: Any, value: types.Type) -> tuple[Any, Callable[..., Any]]:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), emit

    return intrinsic(typing)


@intrinsic  # type: ignore[untyped-decorator]
def to_float(_: Any, value: types.Type) -> tuple[Any, Callable[..., Any]]:
    """The nearest float32 of an int32."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), emit


@intrinsic  # type: ignore[untyped-decorator]
def prefer_wide_vectors(_: Any) -> tuple[Any, Callable[..., Any]]:
    """Lets the kernel that calls it use vectors of 512 bits where the processor has them.

    Compilers keep to 256 bits on most of those, for loops that wait for memory. A loop of many
    integer operations, as drawing random bits, takes 0.6 of the time with the wide ones.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite's set refuses, in its own `add`, attributes that are not one word.
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), emit


add = _binary("add", types.uint32)
subtract = _binary("sub", types.uint32)
multiply = _binary("mul", types.uint32)
conjunction = _binary("and_", types.uint32)
disjunction = _binary("or_", types.uint32)
exclusive = _binary("xor", types.uint32)
shift_left = _binary("shl", types.uint32)
"""Undefined for shifts of 32 and more, as in LLVM."""
shift_right = _binary("lshr", types.uint32)
"""Undefined for shifts of 32 and more, as in LLVM."""
add_signed = _binary("add", types.int32)
subtract_signed = _binary("sub", types.int32)
bits_of = _reinterpret(types.float32, types.uint32)
float_of = _reinterpret(types.uint32, types.float32)
