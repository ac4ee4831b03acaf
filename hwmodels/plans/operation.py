"""Operations as kernels: the one place where loops, formats and bytes are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwmodels.formats.quantizer import Format
from hwmodels.runtimes.runtime import KernelMode
from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.lookup import NARROW_SUMS
from hwmodels.work.loops import ProductLoops, contraction_loops, plain_loops
from hwmodels.work.routing import hit_experts
from hwmodels.work.work import Op, Operand, OperandName

FIRST: tuple[OperandName, ...] = ("input", "q", "probabilities")
SECOND: tuple[OperandName, ...] = ("weight", "k", "v")
PLAIN_KINDS: dict[str, KernelKind] = {
    "elementwise": "pointwise",
    "copy": "pointwise",
    "other": "pointwise",
    "quantize": "quantize",
    "softmax": "rowwise",
    "layernorm": "rowwise",
    "rmsnorm": "rowwise",
    "reduce": "reduce",
    "pool": "reduce",
    "embedding": "embedding",
    "collective": "collective",
}
KERNEL_OF: dict[str, KernelKind] = {"conv2d": "conv2d", "attention": "attention"}
"""Contractions that are no GEMM to an estimator; the others differ in their batch alone."""


def reads_of(op: Op) -> list[Operand]:
    """Operands that the op reads."""
    return [operand for operand in op.operands if operand.name != "output"]


def contraction_kernel(
    ops: Sequence[Op],
    reads: Sequence[Operand],
    written: int,
    *,
    compute: tuple[str, str],
    accumulator: str,
    output: Format | None = None,
) -> Kernel:
    """One kernel for the contracting `ops`, reading `reads` and writing `written` bytes.

    `output` is the format that it writes, `compute` what the unit multiplies: elements of the
    second and of the first operand. Several GEMMs that share their input have their N summed.

    Raises:
        WorkError: An op without the sizes or operands that its kind needs.
    """
    first = ops[0]
    loops = contraction_loops(first.kind, first.sizes, where=first.name)
    if isinstance(loops, ProductLoops) and len(ops) > 1:
        loops = replace(loops, n=sum(op.sizes["N"] for op in ops))
    seconds = [operand for operand in reads if operand.name in SECOND]
    # A residual that is fused in is an `input` too, of the addition: it is read, not multiplied.
    multiplied = {operand.value for op in ops for operand in op.operands if operand.name in FIRST}
    firsts = [o for o in reads if o.name in FIRST and o.value in multiplied]
    others = [o for o in reads if o not in firsts and o.name not in SECOND]
    streamed = round(sum(operand.bytes for operand in seconds) * share_of_weights(first))
    return Kernel(
        kind=KERNEL_OF.get(first.kind, "gemm"),
        detail=first.detail,
        loops=loops,
        input_format=_format_of(first, FIRST),
        weight_format=_format_of(first, SECOND),
        output_format=output,
        weight_element=compute[0],
        input_element=compute[1],
        accumulator=accumulator,
        input_bytes=sum(operand.bytes for operand in firsts),
        weight_bytes=streamed,
        weight_is_cold=any(operand.is_weight or operand.is_cache for operand in seconds),
        other_bytes=sum(operand.bytes for operand in others),
        write_bytes=written,
    )


def in_mode(kernel: Kernel, mode: KernelMode) -> Kernel:
    """The kernel of a product as a mode of the runtime runs it."""
    kernel = replace(
        kernel, algorithm=mode.convolution, lookup=mode.lookup, outliers=mode.outliers
    )
    if mode.accumulator in NARROW_SUMS:
        kernel = replace(kernel, accumulator=mode.accumulator)
    if kernel.kind != "gemm":
        return kernel
    if mode.tile is None:
        return replace(kernel, efficiency=mode.efficiency)
    return replace(kernel, kind="tiled_gemm", tile=mode.tile, efficiency=mode.efficiency)


def _format_of(op: Op, names: Sequence[OperandName]) -> Format | None:
    return next((operand.format for operand in op.operands if operand.name in names), None)


def share_of_weights(op: Op) -> float:
    """Share of the second operand that one call reads: of experts, those that get tokens.

    Of a stack of E matrices, of which an index picks one for each product, those that are picked.
    """
    s = op.sizes
    if op.kind != "grouped_gemm":
        return hit_experts(s["E"], s.get("B", 1), 1) / s["E"] if "E" in s else 1.0
    return hit_experts(s["E"], s["M"], s["topk"]) / s["E"]


def _row_bytes(op: Op) -> int:
    """Bytes of the rows that a look-up reads of a table with a format; 0 for one without."""
    return sum(
        replace(operand, shape=(op.sizes["tokens"], op.sizes["dim"])).bytes
        for operand in op.operands
        if operand.is_weight and operand.quantizer is not None
    )


def plain_kernel(
    ops: Sequence[Op], reads: Sequence[Operand], written: int, output: Format | None = None
) -> Kernel:
    """One kernel for ops that do not contract; the kind is that of the most demanding one."""
    main = max(ops, key=lambda op: op.kind in ("softmax", "layernorm", "rmsnorm", "reduce"))
    cold = sum(operand.bytes for operand in reads if operand.is_weight or operand.is_cache)
    total = sum(operand.bytes for operand in reads)
    kind = PLAIN_KINDS.get(main.kind, "pointwise")
    if main.kind == "embedding":
        # A look-up reads the rows that it returns, not the table.
        cold = total = _row_bytes(main) or written
    return Kernel(
        kind=kind,
        detail=main.detail or main.kind,
        loops=plain_loops(main.sizes),
        input_format=reads[0].format if reads else None,
        output_format=output,
        input_bytes=total - cold,
        weight_bytes=cold,
        write_bytes=written,
    )
