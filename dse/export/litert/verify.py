"""Weights, products and outputs of a .tflite file as LiteRT has them, against the emulator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from dse.errors import ExportError
from dse.execute.program.feeds import checked
from dse.export.base import Check, Recipe
from dse.export.litert.file import Array
from dse.export.litert.network import FIRST, LAST, Combined, Network, Product
from dse.export.litert.products import RELU6
from dse.export.onnx_qdq.caveats import below_range

TIES = 4.0
"""Mean square of what outputs may differ by over that of the quantization noise. Ties that fall to
the other side move later values, and through many layers two roundings are as two samples of
one noise, which differ by twice its square, more or less; operators are compared code for code."""
HALF = 1e-3
"""Distance from a half within which LiteRT may round a code to the other side: its multipliers
have 31 bits. It rounds to whole numbers before it shifts, too, which adds half a step of those."""


@dataclass(slots=True)
class _Codes:
    """Codes of integer operators that were compared."""

    total: int = 0
    ties: int = 0
    """Off by one where exact arithmetic is almost between two codes."""
    worst: int = 0
    """The largest difference elsewhere."""

    def add(
        self, found: Array, real: Array, ends: tuple[float, float], near: Array | float
    ) -> None:
        """Compare codes with exact ones, which may be the other one within `near` of a half."""
        difference = np.abs(np.rint(real).clip(*ends) - found)
        between = np.abs(real - np.floor(real) - 0.5) <= near
        self.total += found.size
        self.ties += int((between & (difference == 1)).sum())
        elsewhere = np.where(between & (difference == 1), 0, difference)
        self.worst = max(self.worst, int(elsewhere.max()))


def checks(recipe: Recipe, network: Network, out: Path) -> tuple[Check, ...]:
    """Checks by LiteRT's reference kernels.

    Raises:
        ExportError: something else than the emulator.
    """
    from ai_edge_litert.interpreter import (  # noqa: PLC0415 (an extra)
        Interpreter,
        OpResolverType,
    )

    checker = f"LiteRT {metadata.version('ai-edge-litert')}"
    try:
        interpreter = Interpreter(
            model_content=out.read_bytes(),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ExportError(f"{checker} cannot load what was written: {reason}") from error
    weights = _weights(recipe, network, interpreter, checker)
    if recipe.samples is None:
        return (weights, _unrun(checker, "there are no samples to run"))
    typed = checked(recipe.graph, recipe.samples, torch.device("cpu"))
    feeds = {name: value for name, value in typed.items() if isinstance(value, Tensor)}
    return (
        weights,
        *_run(recipe, network, interpreter, feeds, checker),
        *below_range(recipe, feeds),
    )


def _weights(recipe: Recipe, network: Network, interpreter: Any, checker: str) -> Check:
    """Every weight of the file, its codes times its scales."""
    worst, count = 0.0, 0
    by_number = {one["index"]: one for one in interpreter.get_tensor_details()}
    for product in network.products:
        key = f"{product.node}/in1"
        quantize, constant = recipe.bound.get(key), recipe.constant(key)
        assert constant is not None, "a product has a constant weight"
        if quantize is None or not product.integer:
            continue
        wanted = quantize(constant.float()).numpy()
        found = _real(interpreter, by_number[product.inputs[1]])
        found = found.transpose(np.argsort(product.order))
        difference = float(np.abs(found - wanted).max())
        if difference:
            raise ExportError(f"{checker} reads {key} with a difference of {difference:.3g}")
        worst, count = max(worst, difference), count + 1
    total = len(network.products)
    few = (
        ""
        if count == total
        else f"{total - count} of {total} products run in float32: a format of their output "
        "(NODE/out0), input or weight is missing, or a bias is larger than 32 bits"
    )
    return Check(checker=checker, compared=f"{count} integer weights", difference=worst, note=few)


def _real(interpreter: Any, detail: dict[str, Any]) -> Array:
    """The numbers of a tensor: codes less their zero, times their scale, in float32."""
    values: Array = interpreter.get_tensor(detail["index"])
    given = detail["quantization_parameters"]
    scales = given["scales"]
    if not len(scales):
        return values.astype(np.float32)
    shape = [1] * values.ndim
    if len(scales) > 1:
        shape[given["quantized_dimension"]] = len(scales)
    zeros = given["zero_points"].astype(np.float32).reshape(shape)
    real: Array = (values.astype(np.float32) - zeros) * scales.astype(np.float32).reshape(shape)
    return real


def _run(
    recipe: Recipe, network: Network, interpreter: Any, feeds: dict[str, Tensor], checker: str
) -> tuple[Check, ...]:
    """Products and outputs of one sample after the other."""
    by_number = {one["index"]: one for one in interpreter.get_tensor_details()}
    names = [name for name in recipe.graph.inputs if name in feeds]
    outputs: list[list[Array]] = []
    codes = _Codes()
    count = len(feeds[names[0]])
    for number in range(count):
        for name, tensor in zip(names, network.inputs, strict=True):
            _feed(interpreter, by_number[tensor], feeds[name][number : number + 1])
        interpreter.invoke()
        for product in (*network.products, *network.averages):
            if product.integer:
                _compare(interpreter, by_number, network, product, codes)
        for one in network.combined:
            _compare_combined(interpreter, by_number, one, codes)
        outputs.append([_given(interpreter, by_number[tensor]) for tensor in network.outputs])
    integers = sum(product.integer for product in network.products)
    if codes.worst:
        raise ExportError(
            f"{checker} computes products, sums or means that are off by {codes.worst} codes"
        )
    return (
        Check(
            checker=checker,
            compared=f"{integers} integer products{_beside(network)}, code for code",
            difference=float(bool(codes.ties)),
            note=f"{codes.ties} of {codes.total} codes, almost between two, are rounded to the "
            "other one"
            if codes.ties
            else "",
        ),
        _outputs(recipe, feeds, outputs, checker),
    )


def _feed(interpreter: Any, detail: dict[str, Any], value: Tensor) -> None:
    array = value.numpy()
    if array.ndim == 4:
        array = array.transpose(LAST)
    scale, zero = detail["quantization"]
    if scale:
        codes = np.rint(array / np.float32(scale)) + zero
        array = codes.clip(-128, 127)
    interpreter.set_tensor(detail["index"], np.ascontiguousarray(array.astype(detail["dtype"])))


def _given(interpreter: Any, detail: dict[str, Any]) -> Array:
    values = _real(interpreter, detail)
    return values.transpose(FIRST) if values.ndim == 4 else values


def _compare(
    interpreter: Any,
    by_number: dict[int, dict[str, Any]],
    network: Network,
    product: Product,
    codes: _Codes,
) -> None:
    """LiteRT's codes of a product with exact arithmetic on what it read."""
    source, weight, bias = (by_number[number] for number in product.inputs)
    output = by_number[product.output]
    operator = next(one for one in network.file.operators if list(one.outputs) == [product.output])
    sums = _sums(
        interpreter.get_tensor(source["index"]).astype(np.float64) - source["quantization"][1],
        interpreter.get_tensor(weight["index"]).astype(np.float64),
        operator.builtinOptions,
    )
    scales = weight["quantization_parameters"]["scales"].astype(np.float64)
    scale, zero = output["quantization"]
    factors = np.float64(source["quantization"][0]) * scales / scale
    real = (sums + interpreter.get_tensor(bias["index"])) * factors + zero
    low, high = _ends(operator.builtinOptions.fusedActivationFunction, scale, zero)
    codes.add(interpreter.get_tensor(output["index"]), real, (low, high), _near(factors))


def _compare_combined(
    interpreter: Any, by_number: dict[int, dict[str, Any]], one: Combined, codes: _Codes
) -> None:
    """LiteRT's codes of a sum, a mean or another grid with exact arithmetic on what it read."""
    output = by_number[one.output]
    scale, zero = output["quantization"]
    parts = [_exact(interpreter, by_number[number]) for number in one.inputs]
    found = interpreter.get_tensor(output["index"])
    ratio = by_number[one.inputs[0]]["quantization"][0] / np.float64(scale)
    near: Array | float = HALF  # addends are shifted by 20 bits before anything is rounded
    whole: Array = np.sum(parts, axis=0)
    if one.kind == "same":
        near = _near(ratio)
    elif one.kind == "mean":
        elements = parts[0].shape[1] * parts[0].shape[2]
        # LiteRT divides its multiplier by the elements, and shifts by the bits that this takes.
        near = _near(ratio / 2 ** math.floor(math.log2(elements)))
        whole = parts[0].mean((1, 2)).reshape(found.shape)
    codes.add(found, whole / np.float64(scale) + zero, (-128.0, 127.0), near)


def _near(factors: Array | float) -> Array:
    """Distance from a half within which a sum times a factor may be rounded to the other side.

    A factor of a half or more is not shifted, so that it is rounded once.
    """
    shift = np.frexp(factors)[1]
    near: Array = HALF + np.where(shift < 0, np.exp2(shift.astype(np.float64)) / 2, 0)
    return near


def _exact(interpreter: Any, detail: dict[str, Any]) -> Array:
    """The numbers of a tensor in float64, which holds sums of them exactly."""
    scale, zero = detail["quantization"]
    values: Array = interpreter.get_tensor(detail["index"])
    real: Array = (values.astype(np.float64) - zero) * np.float64(scale)
    return real


def _beside(network: Network) -> str:
    """Sums and means that are compared beside products, in words."""
    count = len(network.averages) + sum(one.kind != "same" for one in network.combined)
    return f" and {count} sums and means" if count else ""


def _ends(activation: int, scale: float, zero: int) -> tuple[float, float]:
    """The lowest and the highest code behind an activation."""
    high = np.rint(6 / scale) + zero if activation == RELU6 else np.inf
    return max(-128.0, zero if activation else -128.0), float(min(127.0, high))


def _sums(codes: Array, weights: Array, options: Any) -> Array:
    """Sums of products of integers, exact in float64."""
    if weights.ndim == 2:
        dense: Array = codes @ weights.T
        return dense
    depthwise = hasattr(options, "depthMultiplier")
    image = torch.from_numpy(codes.transpose(FIRST).copy())
    order = (3, 0, 1, 2) if depthwise else FIRST
    kernel = torch.from_numpy(weights.transpose(order).copy())
    if options.padding == 0:
        image = _pad_same(image, tuple(kernel.shape[2:]), options)
    found = conv2d(
        image,
        kernel,
        stride=(options.strideH, options.strideW),
        dilation=(options.dilationHFactor, options.dilationWFactor),
        groups=image.shape[1] if depthwise else 1,
    )
    return found.numpy().transpose(LAST)


def _pad_same(image: Tensor, kernel: tuple[int, ...], options: Any) -> Tensor:
    pads: list[int] = []
    sides = ((3, kernel[1], options.strideW, options.dilationWFactor),
             (2, kernel[0], options.strideH, options.dilationHFactor))  # fmt: skip
    for axis, size, stride, dilation in sides:
        width = image.shape[axis]
        reach = (size - 1) * dilation + 1
        total = max((-(-width // stride) - 1) * stride + reach - width, 0)
        pads += [total // 2, total - total // 2]
    return torch.nn.functional.pad(image, pads)


def _outputs(
    recipe: Recipe, feeds: dict[str, Tensor], outputs: list[list[Array]], checker: str
) -> Check:
    with torch.inference_mode():
        plain = recipe.program.run(feeds).outputs
        wanted = recipe.program.run(feeds, recipe.bound).outputs
    worst = 0.0
    for place, name in enumerate(recipe.graph.outputs):
        found = torch.from_numpy(np.concatenate([one[place] for one in outputs]))
        reference, exact = wanted[name], plain[name]
        assert isinstance(reference, Tensor)
        assert isinstance(exact, Tensor)
        noise = _mean_square(reference - exact)
        difference = float((found - reference).abs().max())
        if _mean_square(found - reference) > TIES * noise + 1e-10 * _mean_square(reference):
            raise ExportError(
                f"{checker} computes {name} with a difference of {difference:.3g}, more than ties "
                "and rounded biases explain"
            )
        worst = max(worst, difference)
    return Check(checker=checker, compared="outputs", difference=worst)


def _mean_square(x: Tensor) -> float:
    return float(x.double().square().mean())


def _unrun(checker: str, why: str) -> Check:
    return Check(checker=checker, compared="nothing", note=f"not run: {why}")
