"""Fourteen small integer networks; CHOSEN ones were looked at when the model was made, FRESH ones
were written when its rules stood, and measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dse.export.litert.file import File
from studies.npu_vela.net import Bits, Net


def mobile(net: Net) -> str:
    """Inverted residuals with depthwise convolutions, as in MobileNetV2 at 96 x 96."""
    x = net.conv("stem", "image", 16, 3, 2)
    plan = ((1, 1, 8), (6, 2, 16), (6, 1, 16), (6, 2, 24), (6, 1, 24), (6, 2, 40), (6, 1, 40))
    for number, (factor, stride, out) in enumerate(plan):
        wide = net.shapes[x][0] * factor
        h = net.conv(f"expand{number}", x, wide, 1) if factor > 1 else x
        h = net.conv(f"depth{number}", h, wide, 3, stride, depthwise=True)
        h = net.conv(f"project{number}", h, out, 1, relu=False)
        x = net.add(f"add{number}", x, h) if net.shapes[x] == net.shapes[h] else h
    x = net.conv("last", x, 128, 1)
    return net.dense("logits", net.mean("pool", x), 10)


def keywords(net: Net) -> str:
    """The depthwise separable network of keyword spotting (DS-CNN of MLPerf Tiny)."""
    x = net.conv("stem", "image", 64, (10, 4), (2, 2))
    for number in range(4):
        x = net.conv(f"depth{number}", x, 64, 3, depthwise=True)
        x = net.conv(f"point{number}", x, 64, 1)
    return net.dense("logits", net.mean("pool", x), 12)


def residual(net: Net) -> str:
    """Basic blocks with strides and projections, as in ResNet-8 of MLPerf Tiny."""
    x = net.conv("stem", "image", 16)
    for number, (out, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
        h = net.conv(f"first{number}", x, out, 3, stride)
        h = net.conv(f"second{number}", h, out, 3, relu=False)
        if stride > 1:
            x = net.conv(f"short{number}", x, out, 1, stride, relu=False)
        x = net.add(f"add{number}", x, h)
    return net.dense("logits", net.mean("pool", x), 10)


def stacked(net: Net) -> str:
    """Convolutions and maximum pools with wide layers at the end, as in VGG."""
    x = "image"
    for number, out in enumerate((24, 48, 96)):
        x = net.conv(f"first{number}", x, out)
        x = net.conv(f"second{number}", x, out)
        x = net.pool(f"pool{number}", x, 2, 2)
    x = net.dense("wide", net.flat("flat", x), 128, relu=True)
    return net.dense("logits", x, 20)


def detector(net: Net) -> str:
    """Kernels of many sizes without padding, 5 x 5, 7 x 1 and 1 x 7, and two strides."""
    x = net.conv("stem", "image", 12, 5, 2, same=False)
    x = net.conv("square", x, 24, 5)
    x = net.conv("tall", x, 40, (7, 1))
    x = net.conv("broad", x, 40, (1, 7))
    x = net.pool("pool", x, 3, 2)
    x = net.conv("down", x, 80, 3, 2, same=False)
    return net.conv("boxes", x, 30, 1, relu=False)


def anomaly(net: Net) -> str:
    """Fully connected layers alone: the autoencoder of MLPerf Tiny."""
    x = net.dense("enter", "image", 128, relu=True)
    for number, out in enumerate((128, 128, 8, 128, 128)):
        x = net.dense(f"layer{number}", x, out, relu=True)
    return net.dense("leave", x, 640)


def tokens(net: Net) -> str:
    """A block over 64 tokens: projections, scores of an attention, a feed-forward layer."""
    queries = net.dense("queries", "image", 96)
    keys = net.dense("keys", "image", 96)
    scores = net.product("scores", queries, keys)
    mixed = net.dense("mixed", scores, 96)
    x = net.add("add", "image", mixed)
    h = net.dense("up", x, 384, relu=True)
    return net.add("out", x, net.dense("down", h, 96))


def digits(net: Net) -> str:
    """Fully connected layers that narrow and widen, as in a classifier of digits."""
    x = "image"
    for number, out in enumerate((256, 192, 96, 320, 64, 48, 160, 32)):
        x = net.dense(f"layer{number}", x, out, relu=True)
    return net.dense("logits", x, 10)


def gestures(net: Net) -> str:
    """Convolutions along time over few channels with wide layers at the end."""
    x = net.conv("stem", "image", 24, (9, 1), (2, 1))
    for number, out in enumerate((32, 48, 64)):
        x = net.conv(f"conv{number}", x, out, (5, 1), (2, 1))
        x = net.conv(f"point{number}", x, out, 1)
    x = net.dense("wide", net.flat("flat", x), 96, relu=True)
    x = net.dense("narrow", x, 40, relu=True)
    return net.dense("logits", x, 12)


def towers(net: Net) -> str:
    """Three branches of kernels of 1, 3 and 5 that are summed, twice, with a shortcut."""
    x = net.conv("stem", "image", 32, 3, 2)
    for number, out in enumerate((48, 80)):
        one = net.conv(f"one{number}", x, out, 1)
        three = net.conv(f"reduce{number}", x, 24, 1)
        three = net.conv(f"three{number}", three, out)
        five = net.conv(f"five{number}", x, 16, 5)
        five = net.conv(f"widen{number}", five, out, 1)
        both = net.add(f"both{number}", five, one)
        x = net.add(f"all{number}", three, both)
        x = net.pool(f"pool{number}", x, 2, 2)
    x = net.conv("last", x, 96, 1)
    return net.dense("logits", net.mean("mean", x), 24)


def waves(net: Net) -> str:
    """Depthwise and pointwise convolutions along time with residuals, and two wide layers."""
    x = net.conv("stem", "image", 40, (7, 1), (2, 1))
    for number, out in enumerate((40, 64, 64, 104)):
        stride = (1 + number % 2, 1)
        h = net.conv(f"depth{number}", x, net.shapes[x][0], (9, 1), stride, depthwise=True)
        h = net.conv(f"point{number}", h, out, 1, relu=False)
        x = net.add(f"add{number}", h, x) if net.shapes[h] == net.shapes[x] else h
    x = net.dense("wide", net.flat("flat", x), 72, relu=True)
    return net.dense("logits", net.dense("narrow", x, 48, relu=True), 8)


def mixer(net: Net) -> str:
    """Rows of features through feed-forward layers with residuals, and gates of two branches."""
    x = net.dense("enter", "image", 72, relu=True)
    for number, wide in enumerate((216, 144)):
        h = net.dense(f"up{number}", x, wide, relu=True)
        h = net.dense(f"down{number}", h, 72)
        g = net.dense(f"gate{number}", x, 72)
        x = net.add(f"add{number}", net.add(f"gated{number}", g, h), x)
    return net.dense("leave", x, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The making of one of the networks."""

    build: Callable[[Net], str]
    shape: tuple[int, ...]
    bits: Bits = 8
    weight_bits: Literal[4, 8] = 8


NETWORKS: dict[str, Network] = {
    "tokens": Network(build=tokens, shape=(64, 96)),
    "detector": Network(build=detector, shape=(3, 64, 64)),
    "mobile": Network(build=mobile, shape=(3, 96, 96)),
    "keywords": Network(build=keywords, shape=(1, 49, 10)),
    "residual": Network(build=residual, shape=(3, 32, 32)),
    "residual16": Network(build=residual, shape=(3, 32, 32), bits=16),
    "stacked": Network(build=stacked, shape=(3, 48, 48)),
    "anomaly": Network(build=anomaly, shape=(1, 640)),
    "anomaly4": Network(build=anomaly, shape=(1, 640), weight_bits=4),
    "digits": Network(build=digits, shape=(1, 784)),
    "gestures": Network(build=gestures, shape=(6, 128, 1)),
    "towers": Network(build=towers, shape=(3, 40, 40)),
    "waves": Network(build=waves, shape=(9, 192, 1)),
    "mixer": Network(build=mixer, shape=(16, 48)),
}
CHOSEN = ("tokens", "detector")
FRESH = ("towers", "waves", "mixer")


def set_of(name: str) -> str:
    """Whether constants were chosen on a network, it was only looked at, or neither."""
    return "chosen on" if name in CHOSEN else "fresh" if name in FRESH else "seen"


def built(name: str, folder: Path, *, tflite: bool = False) -> Path:
    """The ONNX file of a network, with a .tflite beside it where it is asked for."""
    one = NETWORKS[name]
    net = Net(
        name=name, shape=one.shape, bits=one.bits, weight_bits=one.weight_bits,
        file=File() if tflite else None,
    )  # fmt: skip
    net.save(folder, one.build(net))
    return folder / f"{name}.onnx"
