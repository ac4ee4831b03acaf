"""Launches of a runtime for one kernel of a plan: one, several, or one in a slow layout.

Eager torch runs an elementwise operation vectorised only where all operands are dense in one
order. A bias, a scale a channel, a mask that broadcasts, or a part of a fused product takes its
`elementwise_kernel` instead, with an address computation an element. Concatenation, pooling and
means over the image of channels-last maps have kernels of their own, far from the bandwidth.

Source: aten/src/ATen/native/cuda/CUDALoops.cuh (`gpu_kernel_impl_nocast`: `contiguous` or legacy
kernel), native/cuda/Normalization.cu (`batch_norm_cuda_out`: the mean is copied, the inverse
deviation computed, then the map is transformed); times: `studies/gpu_latency/layouts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwmodels.plans.math_attention import EXPANDED_MASK, math_attention
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Op, Operand

STRIDED = "strided"
MAPS = 4
"""Axes of an image batch, which convolutional networks keep with its channels last."""
MAP_KERNELS = {
    "maxpool": "maps_maxpool",
    "averagepool": "maps_averagepool",
    "reducemean": "maps_mean",
    "globalaveragepool": "maps_mean",
    "concat": "concat",
}
"""Kernels of maps with constants of their own (`hwmodels.estimators.gpu.constants`), by detail."""
NOT_VECTORISED = ("silu", "batchnormalization")
"""Kernels that take maps element by element."""
CHANNEL_BYTES = 4096
"""Bytes of a vector of channels: next to nothing, the launch is what it costs."""


def launches(
    kernel: Kernel, ops: Sequence[Op], reads: Sequence[Operand], runtime: Runtime
) -> list[Kernel]:
    """The launches for `kernel`, which runs `ops` and reads `reads`."""
    if ops[0].detail == EXPANDED_MASK:
        if not runtime.takes_expanded_masks:
            return math_attention(kernel, fused=runtime.fuses_pointwise)
        return [replace(kernel, detail="")]
    launched = _pieces(kernel, runtime)
    if runtime.runs_as_written and len(ops) == 1:
        launched = [_laid_out(one, ops[0], reads) for one in launched]
    return [*_channel_kernels(kernel, runtime), *launched, *_bias_kernels(ops, runtime)]


def _pieces(kernel: Kernel, runtime: Runtime) -> list[Kernel]:
    pieces = runtime.pieces.get(kernel.detail)
    if pieces is None or kernel.kind != "pointwise":
        return [kernel]
    share = pieces.passes / pieces.kernels
    piece = replace(
        kernel,
        input_bytes=round(kernel.input_bytes * share),
        weight_bytes=round(kernel.weight_bytes * share),
        other_bytes=round(kernel.other_bytes * share),
        write_bytes=round(kernel.write_bytes * share),
    )
    return [piece] * pieces.kernels


def _channel_kernels(kernel: Kernel, runtime: Runtime) -> list[Kernel]:
    """Kernels that prepare a vector of channels before the map is touched."""
    pieces = runtime.pieces.get(kernel.detail)
    if pieces is None or kernel.kind != "pointwise":
        return []
    small = Kernel(
        kind="pointwise",
        detail="channels",
        input_format=kernel.input_format,
        output_format=kernel.output_format,
        input_bytes=CHANNEL_BYTES,
        write_bytes=CHANNEL_BYTES,
    )
    return [small] * pieces.channel_kernels


def _laid_out(kernel: Kernel, op: Op, reads: Sequence[Operand]) -> Kernel:
    """The kernel under the name that its layout's constants have."""
    output = op.operand("output")
    on_maps = output is not None and len(output.shape) == MAPS
    if kernel.kind in ("reduce", "pointwise") and on_maps and op.detail in MAP_KERNELS:
        return replace(kernel, detail=MAP_KERNELS[op.detail])
    if kernel.kind != "pointwise" or output is None:
        return kernel
    broadcast = any(1 < operand.elements < output.elements for operand in reads)
    parts = op.detail == "rope" or any(operand.is_part for operand in reads)
    if broadcast or parts or (on_maps and op.detail in NOT_VECTORISED):
        return replace(kernel, detail=STRIDED)
    return kernel


def _bias_kernels(ops: Sequence[Op], runtime: Runtime) -> list[Kernel]:
    """Kernels that add a bias where the runtime does not do it in the contraction."""
    outputs = [
        op.operand("output")
        for op in ops
        if op.kind in runtime.bias_kernel and op.operand("bias") is not None
    ]
    return [
        Kernel(
            kind="pointwise",
            detail=STRIDED,
            input_format=output.format,
            output_format=output.format,
            input_bytes=output.bytes,
            write_bytes=output.bytes,
        )
        for output in outputs
        if output is not None
    ]


__all__ = ["launches"]
