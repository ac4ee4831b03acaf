"""Loop nests of kernels: what a kernel iterates over, whatever executes it.

Loops are kept as the operation has them, so that an estimator of a spatial array can map output
channels, taps or pixels to its axes; an estimator of a GPU takes the product that they amount to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.errors import WorkError
from hwmodels.work.routing import hit_experts, rows_per_expert

TYPICAL_SKEW = 101
"""Of routers about which nothing is known: the milder of the two power laws that NVIDIA times
layers of experts with (aiconfigurator, `distribution`)."""
SIZES: dict[str, tuple[str, ...]] = {
    "gemm": ("M", "K", "N"),
    "bmm": ("B", "M", "K", "N"),
    "grouped_gemm": ("E", "M", "K", "N", "topk"),
    "conv2d": ("N", "C", "H", "W", "O", "groups", "OH", "OW", "kh", "kw"),
    "attention": ("B", "H", "S", "L", "D"),
}
"""Sizes that an operation of each contracting kind must have (`Op.sizes`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductLoops:
    """A batch of matrix products (M, K) x (K, N)."""

    batch: int = 1
    m: int
    n: int
    k: int

    @property
    def product(self) -> ProductLoops:
        """The loops themselves."""
        return self

    @property
    def taps(self) -> int:
        """Places of the kernel; a product has one."""
        return 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.m * self.n * self.k


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertLoops(ProductLoops):
    """Products of experts with the rows of the tokens that chose them: one batch of those hit."""

    experts: int
    """Here, hit or not."""
    rows: int
    """Of all experts here together."""
    choices: int
    """Experts that a token chooses, as far as they are here; at least 1."""
    parts: int = 1
    """Devices that the layer's experts are spread over (expert parallelism)."""
    skew: int = TYPICAL_SKEW
    """Exponent of the power law of tokens over experts, in hundredths; 0 where all are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionLoops:
    """A convolution over images; pairs are (height, width).

    One spatial axis counts as the width; with three, depth and height are one axis. A transposed
    convolution is counted where its work is done: its output places are those of its input.
    """

    images: int
    groups: int
    in_channels: int
    """Of all groups together."""
    out_channels: int
    in_size: tuple[int, int]
    """Without padding."""
    out_size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def taps(self) -> int:
        """Places of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def product(self) -> ProductLoops:
        """The implicit GEMM: groups x (output pixels, channels and taps of a group, outputs)."""
        return ProductLoops(
            batch=self.groups,
            m=self.images * self.out_size[0] * self.out_size[1],
            n=self.out_channels // self.groups,
            k=self.in_channels // self.groups * self.taps,
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.product.macs

    @property
    def read_share(self) -> float:
        """Share of the input's pixels that some tap touches, in (0, 1].

        Below 1 where the stride goes beyond the kernel: a 1x1 kernel of stride 2 reads a quarter.
        """
        axes = zip(self.in_size, self.out_size, self.kernel, self.stride, self.dilation)  # noqa: B905
        height, width = (_read_share(*axis) for axis in axes)
        return height * width


def _read_share(size: int, places: int, taps: int, stride: int, dilation: int) -> float:
    """Share of `size` positions that `taps` at `places` touch; those in the padding count too.

    A position place * stride + tap * dilation is touched again by the place and the tap that are
    one common multiple of the two away: those pairs count once.
    """
    common = math.gcd(stride, dilation)
    again = max(places - dilation // common, 0) * max(taps - stride // common, 0)
    return min((places * taps - again) / max(size, 1), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLoops:
    """Scaled dot-product attention."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    depth: int
    causal: bool = False
    window: int | None = None
    """Keys that a query sees at most: sliding-window attention."""

    @property
    def reach(self) -> int:
        """Keys of the query that sees most."""
        return self.keys if self.window is None else min(self.keys, self.window)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both products.

        Causal attention counts what is not masked, which is what its kernels compute: of a
        query with j positions before it min(j + 1, window) keys.
        """
        pairs = self.queries * self.reach
        if self.causal:
            short = max(self.reach - 1 - max(self.keys - self.queries, 0), 0)
            pairs -= short * (short + 1) // 2
        return 2 * self.batch * self.heads * self.depth * pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLoops:
    """Rows of elements that are moved, reduced or normalised; 0 where they are not known."""

    rows: int = 0
    cols: int = 0

    @property
    def macs(self) -> int:
        """None: nothing is contracted."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLoops(RowLoops):
    """Elements of maps that are written, each of a window of what is read."""

    images: int
    channels: int
    out_size: tuple[int, int]
    """Height and width of a map."""
    window: tuple[int, int] = (1, 1)
    """Places of the input that one of the output reads, by axis: those of a pool, or the image of
    a mean over it."""
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveLoops:
    """Devices that take part in a collective."""

    ways: int

    @property
    def macs(self) -> int:
        """None: what is summed on the way is not counted."""
        return 0


Loops = ProductLoops | ConvolutionLoops | AttentionLoops | RowLoops | CollectiveLoops


def contraction_loops(
    kind: str, sizes: Mapping[str, int], *, where: str
) -> ProductLoops | ConvolutionLoops | AttentionLoops:
    """The loops of an operation that contracts, from its sizes (`Op.sizes`).

    Of a layer of experts those that are hit are a batch of products, in expectation.

    Raises:
        WorkError: A size that the kind needs (`SIZES`) is missing; `where` begins the message.
    """
    s = sizes
    if missing := [name for name in SIZES[kind] if name not in s]:
        raise WorkError(f"{where} ({kind}): sizes missing: {', '.join(missing)}")
    match kind:
        case "gemm" | "bmm":
            return ProductLoops(batch=s.get("B", 1), m=s["M"], n=s["N"], k=s["K"])
        case "grouped_gemm":
            hit = hit_experts(s["E"], s["M"], s["topk"])
            rows = rows_per_expert(s["E"], s["M"], s["topk"])
            return ExpertLoops(
                batch=hit,
                m=rows,
                n=s["N"],
                k=s["K"],
                experts=s["E"],
                rows=s["M"],
                choices=max(s["topk"], 1),
                parts=s.get("parts", 1),
                skew=s.get("skew", TYPICAL_SKEW),
            )
        case "conv2d":
            return ConvolutionLoops(
                images=s["N"],
                groups=s["groups"],
                in_channels=s["C"],
                out_channels=s["O"],
                in_size=(s["H"], s["W"]),
                out_size=(s["OH"], s["OW"]),
                kernel=(s["kh"], s["kw"]),
                stride=(s.get("sh", 1), s.get("sw", 1)),
                dilation=(s.get("dh", 1), s.get("dw", 1)),
            )
        case _:
            return AttentionLoops(
                batch=s["B"],
                heads=s["H"],
                kv_heads=s.get("HK", s["H"]),
                queries=s["S"],
                keys=s["L"],
                depth=s["D"],
                causal=bool(s.get("causal", 0)),
                window=s.get("window"),
            )


def plain_loops(sizes: Mapping[str, int]) -> RowLoops | CollectiveLoops:
    """The loops of an operation that contracts nothing."""
    s = sizes
    if "ways" in s:
        return CollectiveLoops(ways=s["ways"])
    rows, cols = s.get("rows", 0), s.get("cols", 0)
    if "OH" not in s:
        return RowLoops(rows=rows, cols=cols)
    return MapLoops(
        rows=rows,
        cols=cols,
        images=s["N"],
        channels=s["C"],
        out_size=(s["OH"], s["OW"]),
        window=(s.get("kh", 1), s.get("kw", 1)),
        stride=(s.get("sh", 1), s.get("sw", 1)),
    )
