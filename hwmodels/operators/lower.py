"""Rows of an operator table as operations of a network, and the kernels that run them.

Kernels come from the same lowering as a network's (`hwmodels.plans.operation`); what a table says
beside are the caches that it was measured with, and what eager torch runs one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwmodels.devices.device import Device
from hwmodels.errors import MeasurementError
from hwmodels.formats import catalog
from hwmodels.formats.element import unit_element
from hwmodels.formats.quantizer import Format, Quantizer
from hwmodels.operators.number_type import TYPES_OF_OPERATORS, NumberType
from hwmodels.plans.operation import contraction_kernel, in_mode, plain_kernel, reads_of
from hwmodels.plans.quantisation import quantising, rescaling
from hwmodels.runtimes.quantisation import DEFAULT
from hwmodels.runtimes.runtime import KernelMode, Runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import SIZES, RowLoops
from hwmodels.work.work import CONTRACTING, Op, Operand, OperandName, OpKind, plain_format

Compute = tuple[str, str]
"""Elements of the second and of the first operand in the unit."""
ROWWISE = ("rows", "cols")
SIZES_OF_OP: dict[str, tuple[str, ...]] = {
    "gemm": SIZES["gemm"],
    "bmm": SIZES["bmm"],
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
OPTIONAL_SIZES = {"attention": ("window",)}
"""Sizes that an operator may have: keys that a query sees at most."""
PARTS_OF_OP = {"attention": (("HK", "H"),), "conv2d": (("groups", "C", "O"),)}
"""Sizes that divide others: heads of keys those of queries, groups both channels."""
KINDS: dict[str, OpKind] = {
    "add": "elementwise", "mul": "elementwise", "relu": "elementwise", "gelu": "elementwise",
    "silu": "elementwise", "softmax": "softmax", "layernorm": "layernorm", "rmsnorm": "rmsnorm",
    "reduce_mean": "reduce", "cast_fp8": "quantize",
}  # fmt: skip
"""Operations of rows."""
FP8, FP8_TENSOR = catalog.format("e4m3"), catalog.format("e4m3_tensor")
SCALE = catalog.format("fp32").element
# aiconfigurator times five copies of a layer one after the other, on one input: "to reduce impact
# of L2 cache hit" (collector/trtllm/collect_gemm.py, github.com/ai-dynamo/aiconfigurator).
CYCLED_WEIGHTS = 5
INPUTS = {"add": 2, "mul": 2}
TORCH = "torch"
EAGER, PROCESSOR = "torch-eager", "torch-cpu"
COLD_WEIGHTS = ("onnxruntime-cpu",)
"""Runtimes whose operators `dse profile` times as they stand in a network."""
SCALAR_TYPE = "w8a16"
"""The number type that torch multiplies without matrix unit (`_weight_int8pack_mm` on CUDA)."""
PER_ROW_TYPES = ("fp8_dynamic", "w8a8_int8_dynamic")
"""Number types of GEMMs that eager torch quantises row by row, an operation a kernel."""


def operator_kernels(
    op: str, shape: Mapping[str, int], dtype: str, runtime: Runtime, compute: Compute
) -> tuple[Kernel, ...]:
    """The kernels that a runtime launches for one operator.

    `compute` is what the device multiplies for the dtype (`compute_elements`). Torch's runtimes
    are measured with cold caches (`dse profile`), a tuner's too, and without quantisation
    (`Runtime.tuned`), ONNX Runtime's on processors with cold weights alone, as in a network, the
    others with warm ones (their own tables).
    """
    number = TYPES_OF_OPERATORS[dtype]
    torch = runtime.name.startswith(TORCH)
    cold = torch or runtime.tuned
    if torch and runtime.name != PROCESSOR and op == "gemm" and dtype == SCALAR_TYPE:
        return (_scalar_gemm(shape, number),)
    quantised = op == "quant_fp8" or (op == "gemm" and dtype in PER_ROW_TYPES)
    mode = _mode(op, number, runtime) if op in ("gemm", "conv2d") else None
    if runtime.name in (EAGER, PROCESSOR) and quantised:
        kernels = _eager(op, shape, dtype, runtime, compute)
    else:
        written = (
            number.input if mode is not None and mode.output == number.input_element else None
        )
        kernels = op_kernels(op, shape, dtype, compute, cold=cold, written=written)
    if runtime.tuned and op == "gemm":
        kernels = kernels[-1:]
    if runtime.name in COLD_WEIGHTS:
        kernels = tuple(_in_network(kernel, op) for kernel in kernels)
    return tuple(in_mode(kernel, mode) for kernel in kernels) if mode else kernels


def _in_network(kernel: Kernel, op: str) -> Kernel:
    """The kernel with weights in main memory and activations where they were just written."""
    cold = op in ("gemm", "conv2d", "embedding")
    return replace(kernel, inputs_are_cold=False, weight_is_cold=cold, weight_copies=1)


def _mode(op: str, number: NumberType, runtime: Runtime) -> KernelMode | None:
    """The runtime's kernel for products of the number type.

    One for the elements, and of those one whose scales are shared alike, where there is one.
    """
    asked: dict[OperandName, Format] = {"weight": number.weight, "input": number.input}
    fitting = []
    for mode in runtime.modes:
        layouts = [(mode.operands.get(name), stored) for name, stored in asked.items()]
        if op in mode.ops and all(
            layout and unit_element(stored.element) in layout.elements
            for layout, stored in layouts
        ):
            fitting.append(mode)
    weight = number.weight.granularity
    alike = (mode for mode in fitting if weight in mode.operands["weight"].granularities)
    return next(alike, fitting[0] if fitting else None)


def op_kernels(
    op: str,
    shape: Mapping[str, int],
    dtype: str,
    compute: Compute,
    *,
    cold: bool,
    written: Format | None = None,
) -> tuple[Kernel, ...]:
    """The kernels of one operator.

    `compute` is what the device multiplies for the dtype (`compute_elements`); `cold`: nothing is
    in the caches when the operator starts; `written`: the output's format, where it is not that
    of the number type.
    """
    number = TYPES_OF_OPERATORS[dtype]
    if written is not None:
        number = replace(number, output=written)
    if op == "quant_fp8":
        loops = {"rows": shape["rows"], "cols": shape["cols"]}
        scale = _operation("reduce", "compute_scale", loops, (_rows(shape, number.input),))
        maximum = plain_kernel([scale], scale.operands, SCALE.bits // 8, plain_format(SCALE.bits))
        return (_measured(maximum, cold=cold), *op_kernels("cast_fp8", shape, dtype, compute,
                                                           cold=False))  # fmt: skip
    operation = operation_of(op, shape, number)
    output = next(operand for operand in operation.operands if operand.name == "output")
    if operation.kind not in CONTRACTING:
        kernel = plain_kernel(
            [operation], reads_of(operation), output.bytes, output.format
        )  # fmt: skip
        return (_measured(kernel, cold=cold),)
    kernel = contraction_kernel(
        [operation],
        reads_of(operation),
        output.bytes,
        compute=compute,
        accumulator="int32" if number.is_integer else "fp32",
        output=output.format,
    )
    before: tuple[Kernel, ...] = ()
    if number.quantizes and operation.kind in ("gemm", "bmm"):
        before = _fewest(operation.operands[0])
    return tuple(_measured(one, cold=cold) for one in (*before, kernel))


def _fewest(operand: Operand) -> tuple[Kernel, ...]:
    """The quantisation of an activation where nothing is known of the runtime's kernels."""
    quantizer = _quantizer(operand)
    rule = next(one for one in DEFAULT if one.takes(quantizer))
    return quantising(operand, rule)


def operation_of(op: str, shape: Mapping[str, int], number: NumberType) -> Op:
    """A row of an operator table as an operation of a network, its operands in their formats.

    Padding of half a kernel keeps a convolution's size, apart from the stride; a patch embedding
    (stride = kernel) has none.
    """
    s = shape
    match op:
        case "gemm" | "bmm":
            batch = (s["B"],) if op == "bmm" else ()
            return _operation(
                op, "", s,
                (
                    _operand("input", (*batch, s["M"], s["K"]), number.input, -1),
                    _operand("weight", (*batch, s["N"], s["K"]), number.weight, -1),
                    _operand("output", (*batch, s["M"], s["N"]), number.output),
                ),
            )  # fmt: skip
        case "conv2d":
            return _convolution(shape, number)
        case "attention":
            # The last `window` keys of the first query, and those of the queries after it.
            seen = min(s["L"], s.get("window", s["L"]) + s["S"] - 1)
            keys = (s["B"], s["HK"], seen, s["D"])
            queries = (s["B"], s["H"], s["S"], s["D"])
            return _operation(
                op, "", s,
                (
                    _operand("q", queries, number.input, -1),
                    _operand("k", keys, number.weight, -1),
                    _operand("v", keys, number.weight, -2),
                    _operand("output", queries, number.output),
                ),
            )  # fmt: skip
        case "embedding":
            table = _operand("weight", (s["vocab"], s["dim"]), number.input)
            rows = _operand("output", (s["tokens"], s["dim"]), number.input)
            return _operation(op, op, s, (table, rows))
        case _:
            return _row_operation(op, shape, number)


def _convolution(shape: Mapping[str, int], number: NumberType) -> Op:
    s, size = shape, shape["k"]
    out_h, out_w = (-(-s[axis] // s["stride"]) for axis in ("H", "W"))
    sizes = {
        **{name: s[name] for name in ("N", "C", "H", "W", "O", "groups")},
        "OH": out_h, "OW": out_w, "kh": size, "kw": size, "sh": s["stride"], "sw": s["stride"],
    }  # fmt: skip
    weight = (s["O"], s["C"] // s["groups"], size, size)
    return _operation(
        "conv2d", "", sizes,
        (
            _operand("input", (s["N"], s["C"], s["H"], s["W"]), number.input, 1),
            _operand("weight", weight, number.weight, 1, 2, 3),
            _operand("output", (s["N"], s["O"], out_h, out_w), number.output),
        ),
    )  # fmt: skip


def _row_operation(op: str, shape: Mapping[str, int], number: NumberType) -> Op:
    written = {"cast_fp8": FP8, "reduce_mean": number.output}.get(op, number.output)
    size = (shape["rows"],) if op == "reduce_mean" else (shape["rows"], shape["cols"])
    second = replace(_rows(shape, number.input), name="other", value="other")
    others = (second,) * (INPUTS.get(op, 1) - 1)
    operands = (_rows(shape, number.input), *others, _operand("output", size, written))
    return _operation(KINDS[op], op, shape, operands)


def _operation(
    kind: OpKind, detail: str, sizes: Mapping[str, int], operands: tuple[Operand, ...]
) -> Op:
    return Op(name=detail or kind, kind=kind, sizes=sizes, operands=operands, detail=detail)


def _operand(name: OperandName, shape: tuple[int, ...], stored: Format, *axes: int) -> Operand:
    return Operand(
        name=name,
        value=name,
        shape=shape,
        contraction_axes=axes,
        quantizer=Quantizer(format=stored),
        is_weight=name == "weight",
    )


def _rows(shape: Mapping[str, int], stored: Format) -> Operand:
    return _operand("input", (shape["rows"], shape["cols"]), stored)


def _measured(kernel: Kernel, *, cold: bool) -> Kernel:
    """The kernel as its table measured it: all caches flushed, or the same work again and again.

    Convolutions were measured cold only; their second operand counts as cold.
    """
    if kernel.kind in ("gemm", "embedding", "attention"):
        copies = CYCLED_WEIGHTS if kernel.kind == "gemm" and not cold else 1
        kernel = replace(kernel, weight_is_cold=cold, weight_copies=copies)
    elif kernel.kind == "conv2d":
        kernel = replace(kernel, weight_is_cold=True)
    return replace(kernel, inputs_are_cold=cold)


def compute_elements(dtype: str, device: Device) -> Compute:
    """The elements that a device multiplies for a number type, widened where it must.

    Raises:
        MeasurementError: The device multiplies nothing that holds the number type.
    """
    number = TYPES_OF_OPERATORS[dtype]
    pair = device.widened(number.weight_element, number.input_element)
    if pair is None:
        raise MeasurementError(
            f"{device.name} multiplies nothing that holds {number.weight_element} and "
            f"{number.input_element}; it has {', '.join(sorted(device.elements))}"
        )
    return pair


def _eager(
    op: str, shape: Mapping[str, int], dtype: str, runtime: Runtime, compute: Compute
) -> tuple[Kernel, ...]:
    if op == "quant_fp8":
        operand = _rows(shape, FP8_TENSOR)
        return quantising(operand, runtime.quantisation_of(_quantizer(operand)), cold=True)
    operation = operation_of(op, shape, TYPES_OF_OPERATORS[dtype])
    activation, product = operation.operands[0], operation.operands[-1]
    rule = runtime.quantisation_of(_quantizer(activation))
    # The quantised activation was just written, the weight was not.
    gemm = replace(op_kernels(op, shape, dtype, compute, cold=True)[-1], inputs_are_cold=False)
    rescaled = rescaling(product, rule) if TYPES_OF_OPERATORS[dtype].is_integer else ()
    return (*quantising(activation, rule, cold=True), gemm, *rescaled)


def _quantizer(operand: Operand) -> Quantizer:
    assert operand.quantizer is not None, "operands of a table have formats"
    return operand.quantizer


def _scalar_gemm(shape: Mapping[str, int], number: NumberType) -> Kernel:
    """A thread an output that walks along K: to the estimator a row to reduce."""
    m, n, k = shape["M"], shape["N"], shape["K"]
    return Kernel(
        kind="rowwise",
        detail="int8pack_mm",
        loops=RowLoops(rows=m * n, cols=k),
        input_format=number.input,
        weight_format=number.weight,
        output_format=number.output,
        input_bytes=round(m * k * number.input_bytes),
        other_bytes=round(n * k * number.weight_bytes),
        write_bytes=round(m * n * number.output_bytes),
        inputs_are_cold=True,
    )
