"""Rows of an operator table as kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwmodels.devices.device import Device
from hwmodels.errors import MeasurementError
from hwmodels.operators.number_type import NUMBER_TYPES, NumberType
from hwmodels.plans.eager_kernels import eager_quantisation, eager_rescaling
from hwmodels.work.kernel import Kernel, KernelKind

Compute = tuple[str, str]
"""Elements of the second and of the first operand in the unit."""
ROWWISE = ("rows", "cols")
SIZES_OF_OP: dict[str, tuple[str, ...]] = {
    "gemm": ("M", "K", "N"),
    "bmm": ("B", "M", "K", "N"),
    "attention": ("B", "H", "HK", "S", "L", "D"),
    "conv2d": ("N", "C", "H", "W", "O", "k", "stride", "groups"),
    "embedding": ("vocab", "dim", "tokens"),
    **dict.fromkeys(
        (
            "add", "mul", "relu", "gelu", "silu", "softmax", "layernorm", "rmsnorm",
            "reduce_mean", "cast_fp8", "quant_fp8",
        ),
        ROWWISE,
    ),
}  # fmt: skip
FLAGS = ("causal",)
"""What a shape may say beside its sizes; absent means no."""
KINDS: dict[str, KernelKind] = {
    "add": "pointwise", "mul": "pointwise", "relu": "pointwise", "gelu": "pointwise",
    "silu": "pointwise", "softmax": "rowwise", "layernorm": "rowwise", "rmsnorm": "rowwise",
    "reduce_mean": "reduce", "cast_fp8": "quantize",
}  # fmt: skip
# aiconfigurator times five copies of a layer one after the other, on one input: "to reduce impact
# of L2 cache hit" (collector/trtllm/collect_gemm.py, github.com/ai-dynamo/aiconfigurator).
CYCLED_WEIGHTS = 5
INPUTS = {"add": 2, "mul": 2}
TORCH = "torch"
EAGER = "torch-eager"
SCALAR_TYPE = "w8a16"
"""The number type that torch multiplies without matrix unit (`_weight_int8pack_mm` on CUDA)."""
PER_ROW_TYPES = ("fp8_dynamic", "w8a8_int8_dynamic")
"""Number types of GEMMs that eager torch quantises row by row, an operation a kernel."""


def operator_kernels(
    op: str, shape: Mapping[str, int], dtype: str, runtime: str, compute: Compute
) -> tuple[Kernel, ...]:
    """The kernels that a runtime launches for one operator.

    `compute` is what the device multiplies for the dtype (`compute_elements`). Torch's runtimes
    are measured with cold caches (`dse profile`), the others with warm ones (their own tables).
    """
    number = NUMBER_TYPES[dtype]
    cold = runtime.startswith(TORCH)
    if cold and op == "gemm" and dtype == SCALAR_TYPE:
        return (_scalar_gemm(shape, number),)
    if runtime == EAGER and (op == "quant_fp8" or (op == "gemm" and dtype in PER_ROW_TYPES)):
        return _eager(op, shape, number, compute)
    return op_kernels(op, shape, dtype, compute, cold=cold)


def op_kernels(
    op: str, shape: Mapping[str, int], dtype: str, compute: Compute, *, cold: bool
) -> tuple[Kernel, ...]:
    """The kernels of one operator.

    `compute` is what the device multiplies for the dtype (`compute_elements`); `cold`: nothing is
    in the caches when the operator starts.
    """
    number = NUMBER_TYPES[dtype]
    if op in ("gemm", "bmm"):
        gemm = _gemm(shape, number, compute, cold=cold)
        quantise = _quantise(shape["M"], shape["K"], number, cold=cold)
        return (*quantise, gemm) if number.quantizes else (gemm,)
    if op == "conv2d":
        return (_conv2d(shape, number, compute, cold=cold),)
    if op == "attention":
        return (_attention(shape, number, compute, cold=cold),)
    return _moves(op, shape, number, cold=cold)


def compute_elements(dtype: str, device: Device) -> Compute:
    """The elements that a device multiplies for a number type, widened where it must.

    Raises:
        MeasurementError: The device multiplies nothing that holds the number type.
    """
    number = NUMBER_TYPES[dtype]
    pair = device.widened(number.weight_element, number.input_element)
    if pair is None:
        raise MeasurementError(
            f"{device.name} multiplies nothing that holds {number.weight_element} and "
            f"{number.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return pair


def _eager(
    op: str, shape: Mapping[str, int], number: NumberType, compute: Compute
) -> tuple[Kernel, ...]:
    if op == "quant_fp8":
        rows, cols = shape["rows"], shape["cols"]
        return eager_quantisation(rows, cols, per_row=False, to_integer=False, cold=True)
    m, k, n = shape["M"], shape["K"], shape["N"]
    integer = number.input_element.startswith("int")
    # The quantised activation was just written, the weight was not.
    gemm = replace(_gemm(shape, number, compute, cold=True), inputs_are_cold=False)
    return (
        *eager_quantisation(m, k, per_row=True, to_integer=integer, cold=True),
        gemm,
        *(eager_rescaling(m, n) if integer else ()),
    )


def _gemm(shape: Mapping[str, int], number: NumberType, compute: Compute, *, cold: bool) -> Kernel:
    batch, m, n, k = shape.get("B", 1), shape["M"], shape["N"], shape["K"]
    weight, input_ = compute
    return Kernel(
        kind="gemm",
        sizes={"B": batch, "M": m, "N": n, "K": k, "taps": 1},
        weight_element=weight,
        input_element=input_,
        accumulator="int32" if input_.startswith("int") else "fp32",
        input_bytes=round(batch * m * k * number.input_bytes),
        weight_bytes=round(batch * n * k * number.weight_bytes),
        weight_is_cold=cold,
        weight_copies=1 if cold else CYCLED_WEIGHTS,
        write_bytes=round(batch * m * n * number.output_bytes),
        inputs_are_cold=cold,
    )


def _scalar_gemm(shape: Mapping[str, int], number: NumberType) -> Kernel:
    """A thread an output that walks along K: to the estimator a row to reduce."""
    m, n, k = shape["M"], shape["N"], shape["K"]
    return Kernel(
        kind="rowwise",
        detail="int8pack_mm",
        sizes={"rows": m * n, "cols": k},
        input_bytes=round(m * k * number.input_bytes),
        other_bytes=round(n * k * number.weight_bytes),
        write_bytes=round(m * n * number.output_bytes),
        inputs_are_cold=True,
    )


def _quantise(rows: int, cols: int, number: NumberType, *, cold: bool) -> tuple[Kernel, ...]:
    return (
        Kernel(
            kind="quantize",
            detail="token" if number.input_bytes == 1 else "group",
            sizes={"rows": rows, "cols": cols},
            input_bytes=2 * rows * cols,
            write_bytes=round(rows * cols * number.input_bytes),
            inputs_are_cold=cold,
        ),
    )


def _conv2d(
    shape: Mapping[str, int], number: NumberType, compute: Compute, *, cold: bool
) -> Kernel:
    size, stride, groups = shape["k"], shape["stride"], shape["groups"]
    # Padding of half a kernel keeps the size, apart from the stride; a patch embedding (stride =
    # kernel) has none.
    out_h, out_w = (-(-shape[axis] // stride) for axis in ("H", "W"))
    weight, input_ = compute
    channels = shape["C"] // groups
    return Kernel(
        kind="conv2d",
        sizes={
            "B": groups, "M": shape["N"] * out_h * out_w, "N": shape["O"] // groups,
            "K": channels * size * size, "taps": size * size,
        },
        weight_element=weight,
        input_element=input_,
        input_bytes=round(
            shape["N"] * shape["C"] * shape["H"] * shape["W"] * number.input_bytes
        ),
        weight_bytes=round(shape["O"] * channels * size * size * number.weight_bytes),
        write_bytes=round(shape["N"] * shape["O"] * out_h * out_w * number.output_bytes),
        inputs_are_cold=cold,
    )  # fmt: skip


def _attention(
    shape: Mapping[str, int], number: NumberType, compute: Compute, *, cold: bool
) -> Kernel:
    weight, input_ = compute
    queries = shape["B"] * shape["H"] * shape["S"] * shape["D"]
    keys = shape["B"] * shape["HK"] * shape["L"] * shape["D"]
    return Kernel(
        kind="attention",
        sizes={name: int(shape.get(name, 0)) for name in (*SIZES_OF_OP["attention"], *FLAGS)},
        weight_element=weight,
        input_element=input_,
        input_bytes=round(queries * number.input_bytes),
        weight_bytes=round(2 * keys * number.weight_bytes),
        write_bytes=round(queries * number.output_bytes),
        inputs_are_cold=cold,
    )


def _moves(
    op: str, shape: Mapping[str, int], number: NumberType, *, cold: bool
) -> tuple[Kernel, ...]:
    if op == "embedding":
        moved = round(shape["tokens"] * shape["dim"] * number.input_bytes)
        return (
            Kernel(
                kind="embedding", sizes={}, input_bytes=moved, write_bytes=moved,
                inputs_are_cold=cold,
            ),
        )  # fmt: skip
    rows, cols = shape["rows"], shape["cols"]
    sizes = {"rows": rows, "cols": cols}
    count = rows * cols
    read = round(count * number.input_bytes)
    if op == "quant_fp8":
        maximum = Kernel(
            kind="reduce", detail="compute_scale", sizes=sizes, input_bytes=read, write_bytes=4,
            inputs_are_cold=cold,
        )  # fmt: skip
        return (maximum, *_moves("cast_fp8", shape, number, cold=False))
    written = {"reduce_mean": rows * number.output_bytes, "cast_fp8": count}
    return (
        Kernel(
            kind=KINDS[op],
            detail=op,
            sizes=sizes,
            input_bytes=read,
            other_bytes=read * (INPUTS.get(op, 1) - 1),
            write_bytes=round(written.get(op, count * number.output_bytes)),
            inputs_are_cold=cold,
        ),
    )
