"""Ops of a region as kernels: sizes in the estimator's terms, bytes by operand."""

from __future__ import annotations

from collections.abc import Sequence

from hwmodels.errors import WorkError
from hwmodels.work.kernel import Kernel, KernelKind
from hwmodels.work.routing import hit_experts, rows_per_expert
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
SIZES: dict[str, tuple[str, ...]] = {
    "gemm": ("M", "K", "N"),
    "bmm": ("B", "M", "K", "N"),
    "grouped_gemm": ("E", "M", "K", "N", "topk"),
    "conv2d": ("N", "C", "O", "groups", "OH", "OW", "kh", "kw"),
    "attention": ("B", "H", "S", "L", "D"),
}


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
    efficiency: float,
) -> Kernel:
    """One kernel for the contracting `ops`, reading `reads` and writing `written` bytes.

    Several GEMMs that share their input have their N summed.

    Raises:
        WorkError: An op without the sizes that its kind needs.
    """
    first = ops[0]
    sizes = dict(contraction_sizes(first))
    if len(ops) > 1:
        sizes["N"] = sum(contraction_sizes(op)["N"] for op in ops)
    seconds = [operand for operand in reads if operand.name in SECOND]
    firsts = [operand for operand in reads if operand.name in FIRST]
    others = [operand for operand in reads if operand.name not in (*FIRST, *SECOND)]
    streamed = round(sum(operand.bytes for operand in seconds) * share_of_weights(first))
    return Kernel(
        kind=KERNEL_OF.get(first.kind, "gemm"),
        detail=first.detail,
        sizes=sizes,
        weight_element=compute[0],
        input_element=compute[1],
        accumulator=accumulator,
        input_bytes=sum(operand.bytes for operand in firsts),
        weight_bytes=streamed,
        weight_is_cold=any(operand.is_weight or operand.is_cache for operand in seconds),
        other_bytes=sum(operand.bytes for operand in others),
        write_bytes=written,
        efficiency=efficiency,
    )


def contraction_sizes(op: Op) -> dict[str, int]:
    """Loop sizes of a contraction as an estimator wants them (`Kernel.sizes`).

    Raises:
        WorkError: A size is missing.
    """
    s = op.sizes
    if missing := [name for name in SIZES[op.kind] if name not in s]:
        raise WorkError(f"{op.name} ({op.kind}): sizes missing: {', '.join(missing)}")
    match op.kind:
        case "gemm":
            return {"B": 1, "M": s["M"], "N": s["N"], "K": s["K"], "taps": 1}
        case "bmm":
            return {"B": s["B"], "M": s["M"], "N": s["N"], "K": s["K"], "taps": 1}
        case "grouped_gemm":
            hit = hit_experts(s["E"], s["M"], s["topk"])
            rows = rows_per_expert(s["E"], s["M"], s["topk"])
            return {"B": hit, "M": rows, "N": s["N"], "K": s["K"], "taps": 1}
        case "conv2d":
            taps = s["kh"] * s["kw"]
            return {
                "B": s["groups"],
                "M": s["N"] * s["OH"] * s["OW"],
                "N": s["O"] // s["groups"],
                "K": s["C"] // s["groups"] * taps,
                "taps": taps,
            }
        case _:
            kv_heads = s.get("HK", s["H"])
            return {**dict(s), "HK": kv_heads, "causal": s.get("causal", 0)}


def share_of_weights(op: Op) -> float:
    """Share of the second operand that one call reads: of experts, those that get tokens."""
    if op.kind != "grouped_gemm":
        return 1.0
    s = op.sizes
    return hit_experts(s["E"], s["M"], s["topk"]) / s["E"]


def plain_kernel(ops: Sequence[Op], reads: Sequence[Operand], written: int) -> Kernel:
    """One kernel for ops that do not contract; the kind is that of the most demanding one."""
    main = max(ops, key=lambda op: op.kind in ("softmax", "layernorm", "rmsnorm", "reduce"))
    cold = sum(operand.bytes for operand in reads if operand.is_weight or operand.is_cache)
    total = sum(operand.bytes for operand in reads)
    kind = PLAIN_KINDS.get(main.kind, "pointwise")
    if main.kind == "embedding":
        # A look-up reads the rows that it returns, not the table.
        cold, total = written, written
    return Kernel(
        kind=kind,
        detail=main.detail or main.kind,
        sizes={n: main.sizes[n] for n in ("rows", "cols", "ways") if n in main.sizes},
        input_bytes=total - cold,
        weight_bytes=cold,
        write_bytes=written,
    )
