"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.operator import Operator, Value, operator


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of the last two axes, the rest broadcast (numpy rules)."""
    if a.is_floating_point():
        return torch.matmul(a, b)
    return torch.matmul(a.cpu(), b.cpu()).to(a.device)  # CUDA has no integer products


def matmul_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """One per output element and contracted element."""
    return tensor(outputs[0]).numel() * tensor(inputs[0]).shape[-1]


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
) -> Tensor:
    """Alpha a b + beta c, each matrix transposed on request."""
    a = a.T if trans_a else a
    b = b.T if trans_b else b
    if not a.is_floating_point():
        product = matmul(a, b) if alpha == 1.0 else (matmul(a, b) * alpha).to(a.dtype)
        return product if c is None else product + (c if beta == 1.0 else (c * beta).to(c.dtype))
    if c is None:
        product = torch.mm(a, b)
        return product if alpha == 1.0 else product * alpha
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def gemm_broadcast(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    trans_a: int = 0,
    trans_b: int = 0,
) -> Tensor:
    """Gemm before opset 7, where broadcasting was a choice."""
    return gemm(a, b, c, alpha=alpha, beta=beta, trans_a=trans_a, trans_b=trans_b)


def gemm_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """M N K, where K is what a has beside the rows of the output."""
    a, y = tensor(inputs[0]), tensor(outputs[0])
    return a.numel() // y.shape[0] * y.numel() if y.shape[0] else 0


def einsum(*operands: Tensor, equation: str) -> Tensor:
    """The sum of products that the equation names."""
    return torch.einsum(equation.replace(" ", ""), *operands)


def einsum_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...], *, equation: str) -> int:
    """The product of all sizes that the equation names; zero where it has one operand."""
    if len(inputs) < 2:
        return 0
    sizes: dict[str, int] = {}
    ellipsis = 1
    for term, operand in zip(
        equation.replace(" ", "").split("->")[0].split(","), inputs, strict=True
    ):
        shape = list(tensor(operand).shape)
        head, dots, tail = term.partition("...")
        sizes.update(zip(head, shape, strict=False))
        if tail:
            sizes.update(zip(tail, shape[-len(tail) :], strict=True))
        if dots:
            ellipsis = max(ellipsis, math.prod(shape[len(head) : len(shape) - len(tail)]))
    return ellipsis * math.prod(sizes.values())


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
    trans_batch_a: int = 0,
    trans_batch_b: int = 0,
) -> Tensor:
    """Alpha a b; `trans_batch` moves the first axis before the last two of an operand."""
    a = a.movedim(0, -2) if trans_batch_a else a
    b = b.movedim(0, -2) if trans_batch_b else b
    a = a.transpose(-1, -2) if trans_a and a.dim() > 1 else a
    b = b.transpose(-1, -2) if trans_b and b.dim() > 1 else b
    product = torch.matmul(a, b)
    return product if alpha == 1.0 else product * alpha


def fused_matmul_macs(inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> int:
    """One per output element and contracted element, found from the operands' sizes."""
    b, y = tensor(inputs[1]), tensor(outputs[0])
    columns = y.shape[-1] if b.dim() > 1 else 1
    batch = math.prod(y.shape[:-2]) if b.dim() > 2 else 1
    return y.numel() * (b.numel() // max(1, columns * batch)) if y.numel() else 0


def tensor(value: Value) -> Tensor:
    """The value, which is known to be a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value


OPERATORS: Mapping[str, Operator] = {
    "Einsum": operator(einsum, macs=einsum_macs),
    "Gemm": Operator(versions={1: gemm_broadcast, 7: gemm}, macs=gemm_macs),
    "MatMul": operator(matmul, macs=matmul_macs),
}

MICROSOFT: Mapping[str, Operator] = {
    "FusedMatMul": operator(fused_matmul, macs=fused_matmul_macs),
}
