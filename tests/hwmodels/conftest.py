"""Work made by hand: a Llama block and a small CNN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from hwmodels.work.work import Op, Operand, OpKind, RegionWork, Work

WorkMaker = Callable[..., Work]


def region(name: str, role: str, ops: Sequence[Op], kind: OpKind | None = None) -> RegionWork:
    """A region whose border is what its ops do not pass on inside."""
    written = {o.value: o for op in ops for o in op.operands if o.name == "output"}
    read = {o.value: o for op in ops for o in op.operands if o.name != "output"}
    return RegionWork(
        name=name,
        kind=kind or ops[0].kind,
        role=role,
        ops=tuple(ops),
        reads=tuple(o for value, o in read.items() if value not in written),
        writes=tuple(o for value, o in written.items() if value not in read),
    )


def activation(name: str, value: str, *shape: int, **more: object) -> Operand:
    axes = {"input": (len(shape) - 1,), "q": (len(shape) - 1,)}.get(name, ())
    return Operand(name=name, value=value, shape=shape, contraction_axes=axes, **more)  # type: ignore[arg-type]


def gemm(name: str, read: str, write: str, sizes: tuple[int, int, int]) -> Op:
    m, k, n = sizes
    weight = Operand(
        name="weight", value=f"{name}.w", shape=(k, n), contraction_axes=(0,), is_weight=True
    )
    return Op(
        name=name,
        kind="gemm",
        sizes={"M": m, "K": k, "N": n},
        operands=(activation("input", read, m, k), weight, activation("output", write, m, n)),
    )


def norm(name: str, read: str, write: str, m: int, width: int) -> Op:
    gain = Operand(name="weight", value=f"{name}.g", shape=(width,), is_weight=True)
    return Op(
        name=name,
        kind="rmsnorm",
        sizes={"rows": m, "cols": width},
        operands=(
            Operand(name="input", value=read, shape=(m, width)),
            gain,
            activation("output", write, m, width),
        ),
    )


def pointwise(
    name: str, detail: str, reads: Iterable[str], write: str, shape: tuple[int, int]
) -> Op:
    first, *others = reads
    return Op(
        name=name,
        kind="elementwise",
        detail=detail,
        sizes={},
        operands=(
            Operand(name="input", value=first, shape=shape),
            *(Operand(name="other", value=other, shape=shape) for other in others),
            activation("output", write, *shape),
        ),
    )


def attention(name: str, shape: dict[str, int], write: str, *, cached: bool) -> Op:
    b, s, depth = shape["B"], shape["S"], shape["D"]
    keys = (b, shape["HK"], shape["L"], depth)
    block = name.partition("/")[0]
    return Op(
        name=name,
        kind="attention",
        sizes={**shape, "causal": int(s > 1)},
        operands=(
            activation("q", f"{block}.q", b, shape["H"], s, depth),
            Operand(
                name="k", value=f"{block}.k", shape=keys, contraction_axes=(3,), is_cache=cached
            ),
            Operand(
                name="v", value=f"{block}.v", shape=keys, contraction_axes=(2,), is_cache=cached
            ),
            activation("output", write, b * s, shape["H"] * depth),
        ),
    )


def llama(
    *, layers: int = 1, tokens: int = 64, context: int = 0, batch: int = 1, width: int = 512
) -> Work:
    """Llama blocks with a head: prefill of `tokens`, or with a `context` one cached step."""
    m, hidden, heads, kv_heads = batch * tokens, width * 7 // 2, width // 64, width // 256
    regions: list[RegionWork] = []
    stream = "tokens"
    for index in range(layers):
        b = f"b{index}"
        shape = {"B": batch, "H": heads, "HK": kv_heads, "S": tokens, "L": tokens + context}
        kv = kv_heads * 64
        keys, values = (f"{b}.{x}_new" if context else f"{b}.{x}" for x in "kv")
        regions += [
            region(f"{b}/norm1", "norm", [norm(f"{b}/norm1", stream, f"{b}.n1", m, width)]),
            region(
                f"{b}/qkv",
                "qkv",
                [
                    gemm(f"{b}/wq", f"{b}.n1", f"{b}.q", (m, width, width)),
                    gemm(f"{b}/wk", f"{b}.n1", keys, (m, width, kv)),
                    gemm(f"{b}/wv", f"{b}.n1", values, (m, width, kv)),
                ],
            ),
            region(
                f"{b}/attention",
                "attention",
                [attention(f"{b}/attn", {**shape, "D": 64}, f"{b}.a", cached=context > 0)],
            ),
            region(
                f"{b}/o",
                "o",
                [
                    gemm(f"{b}/wo", f"{b}.a", f"{b}.o", (m, width, width)),
                    pointwise(f"{b}/add1", "add", (f"{b}.o", stream), f"{b}.r", (m, width)),
                ],
            ),
            region(f"{b}/norm2", "norm", [norm(f"{b}/norm2", f"{b}.r", f"{b}.n2", m, width)]),
            region(
                f"{b}/gate_up",
                "gate_up",
                [
                    gemm(f"{b}/wg", f"{b}.n2", f"{b}.g", (m, width, hidden)),
                    gemm(f"{b}/wu", f"{b}.n2", f"{b}.u", (m, width, hidden)),
                    pointwise(f"{b}/act", "silu_mul", (f"{b}.g", f"{b}.u"), f"{b}.s", (m, hidden)),
                ],
            ),
            region(
                f"{b}/down",
                "down",
                [
                    gemm(f"{b}/wd", f"{b}.s", f"{b}.d", (m, hidden, width)),
                    pointwise(f"{b}/add2", "add", (f"{b}.d", f"{b}.r"), f"h{index}", (m, width)),
                ],
            ),
        ]
        stream = f"h{index}"
    regions.append(region("head", "head", [gemm("head", stream, "logits", (m, width, 1024))]))
    return Work(name="llama", regions=tuple(regions), outputs=("logits",))


def conv(name: str, read: str, write: str, channels: tuple[int, int], size: int) -> Op:
    c, o = channels
    weight = Operand(
        name="weight",
        value=f"{name}.w",
        shape=(o, c, 3, 3),
        contraction_axes=(1, 2, 3),
        is_weight=True,
    )
    return Op(
        name=name,
        kind="conv2d",
        sizes={
            "N": 1, "C": c, "H": size, "W": size, "O": o, "kh": 3, "kw": 3, "stride": 1,
            "groups": 1, "OH": size, "OW": size,
        },
        operands=(
            Operand(name="input", value=read, shape=(1, c, size, size), contraction_axes=(1,)),
            weight,
            Operand(name="output", value=write, shape=(1, o, size, size)),
        ),
    )  # fmt: skip


def cnn() -> Work:
    """Three convolutions, the last two joined by a residual addition."""
    image = (1, 16, 16, 16)
    add = Op(
        name="add",
        kind="elementwise",
        detail="add",
        sizes={},
        operands=(
            Operand(name="input", value="c", shape=image),
            Operand(name="other", value="a", shape=image),
            Operand(name="output", value="sum", shape=image),
        ),
    )
    return Work(
        name="cnn",
        regions=(
            region("first", "conv", [conv("first", "image", "a", (8, 16), 16)]),
            region("second", "conv", [conv("second", "a", "b", (16, 16), 16)]),
            region("third", "conv", [conv("third", "b", "c", (16, 16), 16)]),
            region("add", "other", [add]),
            region("last", "conv", [conv("last", "sum", "out", (16, 8), 16)]),
        ),
        outputs=("out",),
    )


@pytest.fixture(name="llama")
def llama_fixture() -> WorkMaker:
    """Makes Llama work of a given size."""
    return llama


@pytest.fixture(name="cnn")
def cnn_fixture() -> Work:
    """A small CNN with a residual connection."""
    return cnn()


@pytest.fixture(name="pair")
def pair_fixture() -> Work:
    """Two GEMMs, regions of their own, that read one activation."""
    return Work(
        name="pair",
        regions=(
            region("x", "o", [gemm("x", "shared", "x_out", (256, 1024, 1024))]),
            region("y", "o", [gemm("y", "shared", "y_out", (256, 1024, 512))]),
        ),
        outputs=("x_out", "y_out"),
    )
