"""Writes the operators of the study: drawn ones to fit to, real layers to be tested on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dse.profile.plan import Operator
from dse.profile.processor_plan import drawn_shapes, queues_of

EACH = 20
"""Drawn operators of a queue: an operator, a number type, a runtime."""

# (M, K, N): BERT-base, MiniLM and ViT-B layers, MobileNet and ResNet classifiers, decoding steps.
GEMMS = (
    (128, 768, 768), (128, 768, 3072), (128, 3072, 768), (128, 384, 384), (128, 384, 1536),
    (128, 1536, 384), (197, 768, 2304), (197, 3072, 768), (1, 768, 768), (1, 768, 3072),
    (1, 4096, 4096), (1, 1280, 1000), (1, 2048, 1000), (16, 1024, 4096), (8, 2048, 2048),
    (64, 512, 512), (256, 256, 1024), (512, 576, 1536),
)  # fmt: skip
# C, H, O, kernel, stride, groups: ResNet-50, MobileNetV2, EfficientNet-Lite0, VGG-16.
CONVOLUTIONS = (
    (3, 224, 64, 7, 2, 1), (64, 56, 64, 1, 1, 1), (64, 56, 64, 3, 1, 1), (64, 56, 256, 1, 1, 1),
    (256, 56, 128, 1, 1, 1), (128, 28, 128, 3, 1, 1), (128, 28, 512, 1, 1, 1),
    (256, 14, 256, 3, 1, 1), (1024, 14, 256, 1, 1, 1), (512, 7, 512, 3, 1, 1),
    (512, 7, 2048, 1, 1, 1), (3, 224, 32, 3, 2, 1), (32, 112, 32, 3, 1, 32),
    (32, 112, 16, 1, 1, 1), (96, 112, 96, 3, 2, 96), (144, 56, 144, 3, 1, 144),
    (192, 28, 192, 5, 1, 192), (576, 14, 576, 3, 1, 576), (960, 7, 960, 3, 1, 960),
    (96, 14, 576, 1, 1, 1), (320, 7, 1280, 1, 1, 1), (256, 56, 256, 3, 1, 1),
)  # fmt: skip
ATTENTIONS = ((1, 12, 128, 64, 0), (1, 12, 197, 64, 0), (1, 6, 128, 64, 1), (8, 12, 128, 64, 0))
ROWS = ((128, 768), (197, 768), (128, 3072), (1, 4096), (1536, 128), (2364, 197), (802, 1024))


def real(op: str) -> Iterator[dict[str, int]]:
    """Shapes of published networks."""
    match op:
        case "gemm":
            yield from ({"M": m, "K": k, "N": n} for m, k, n in GEMMS)
        case "conv2d":
            for c, size, o, k, stride, groups in CONVOLUTIONS:
                yield {"N": 1, "C": c, "H": size, "W": size, "O": o, "k": k, "stride": stride,
                       "groups": groups}  # fmt: skip
        case "attention":
            for b, h, s, d, causal in ATTENTIONS:
                yield {"B": b, "H": h, "HK": h, "S": s, "L": s, "D": d, "causal": causal}
        case "bmm":
            yield {"B": 12, "M": 128, "K": 64, "N": 128}
            yield {"B": 12, "M": 128, "K": 128, "N": 64}
            yield {"B": 12, "M": 197, "K": 64, "N": 197}
        case "embedding":
            yield {"vocab": 30522, "dim": 768, "tokens": 128}
            yield {"vocab": 50257, "dim": 768, "tokens": 16}
        case _:
            yield from ({"rows": rows, "cols": cols} for rows, cols in ROWS)


def operators(kind: str, seed: int) -> Iterator[Operator]:
    """Drawn operators, or real layers, of every queue; none of one is of the other."""
    for op, dtype, runtime in queues_of(sessions=True):
        layers = [*real(op)]
        chosen = [one for one in drawn_shapes(op, seed) if one not in layers]
        for shape in layers if kind == "test" else chosen[:EACH]:
            yield Operator.of(op, shape, dtype, runtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("fit", "test"))
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [
        {"op": one.op, "shape": json.dumps(one.shape), "dtype": one.dtype, "runtime": one.runtime}
        for one in operators(arguments.kind, arguments.seed)
    ]
    pd.DataFrame(rows).to_csv(arguments.out, index=False)
    print(len(rows), "operators")


if __name__ == "__main__":
    main()
