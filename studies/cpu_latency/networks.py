"""Networks under torch and ONNX Runtime: measured here, beside their predictions.

`build` writes the networks as ONNX files, `measure` times them (the least of some calls after a
rest that fills the caches with something else; `warm`: back to back), `compare` prices them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from dse.zoo.export import export
from dse.zoo.llama import Llama, LlamaConfig
from dse.zoo.resnet import ResNet, ResNetConfig

HERE = Path(__file__).parent
RESULT = HERE / "results" / "networks.csv"
CALLS, COLD_BYTES = 9, 2**28
FORMATS = {
    ("torch-cpu", "fp32"): "fp32", ("torch-cpu", "bf16"): "bf16",
    ("torch-cpu", "int8"): "w8a8_int8", ("onnxruntime-cpu", "fp32"): "fp32",
    ("onnxruntime-cpu", "int8"): "int8",
}  # fmt: skip
"""The format that a measurement is priced in, by runtime and number type."""


class Inverted(nn.Module):
    """An inverted bottleneck, batch norms folded (arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, grow: int) -> None:
        super().__init__()
        wide = inputs * grow
        self.expand = nn.Conv2d(inputs, wide, 1) if grow > 1 else nn.Identity()
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.joins = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = functional.relu6(self.expand(x))
        out: torch.Tensor = self.project(functional.relu6(self.depthwise(wide)))
        return x + out if self.joins else out


class MobileNet(nn.Module):
    """MobileNetV2's body at 224 pixels (arXiv:1801.04381, table 2)."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        blocks, inputs = [], 32
        for grow, outputs, count, stride in self.STAGES:
            for index in range(count):
                blocks.append(Inverted(inputs, outputs, stride if index == 0 else 1, 3, grow))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(320, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.blocks(functional.relu6(self.stem(image)))
        pooled = functional.relu6(self.last(features)).mean((2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits


class Encoder(nn.Module):
    """A BERT encoder's layers, post-norm (arXiv:1810.04805)."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                "q": nn.Linear(width, width), "k": nn.Linear(width, width),
                "v": nn.Linear(width, width), "out": nn.Linear(width, width),
                "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
                "first": nn.LayerNorm(width), "second": nn.LayerNorm(width),
            })
            for _ in range(layers)
        )  # fmt: skip

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, width = hidden.shape
        for one in self.layers:
            q, k, v = (
                one[name](hidden).view(batch, length, self.heads, -1).transpose(1, 2)  # type: ignore[index]
                for name in ("q", "k", "v")
            )
            mixed = functional.scaled_dot_product_attention(q, k, v)
            mixed = mixed.transpose(1, 2).reshape(batch, length, width)
            hidden = one["first"](hidden + one["out"](mixed))  # type: ignore[index]
            inner = functional.gelu(one["up"](hidden))  # type: ignore[index]
            hidden = one["second"](hidden + one["down"](inner))  # type: ignore[index]
        return hidden


BYTE_GPT = LlamaConfig(vocabulary=256, width=192, layers=8, heads=6, kv_heads=6, ffn_width=512)
SMOL = LlamaConfig(vocabulary=256, width=576, layers=4, heads=9, kv_heads=3, ffn_width=1536)


def _tokens(count: int) -> tuple[str, torch.Tensor]:
    return "tokens", torch.randint(0, 256, (1, count))


def _image(*shape: int) -> tuple[str, torch.Tensor]:
    return "image", torch.randn(*shape)


def networks() -> dict[str, tuple[nn.Module, tuple[str, torch.Tensor], str]]:
    """By name: the module, its input, and its input's name."""
    torch.manual_seed(0)
    resnet = ResNetConfig(channels=3, widths=(64, 128, 256, 512), classes=1000)
    found: dict[str, tuple[nn.Module, tuple[str, torch.Tensor]]] = {
        "fashion-resnet": (ResNet(ResNetConfig()).fold_batch_norms(), _image(1, 1, 28, 28)),
        "fashion-resnet-8": (ResNet(ResNetConfig()).fold_batch_norms(), _image(8, 1, 28, 28)),
        "resnet18-56px": (ResNet(resnet).fold_batch_norms(), _image(1, 3, 56, 56)),
        "mobilenetv2": (MobileNet(), _image(1, 3, 224, 224)),
        "byte-gpt-128": (Llama(BYTE_GPT), _tokens(128)),
        "smollm2-4-layers-64": (Llama(SMOL), _tokens(64)),
        "minilm-l6-128": (Encoder(384, 6, 12), ("hidden", torch.randn(1, 128, 384))),
        "bert-base-4-layers-128": (Encoder(768, 4, 12), ("hidden", torch.randn(1, 128, 768))),
    }
    return {name: (module.eval(), given, given[0]) for name, (module, given) in found.items()}


class DynamicInt8(nn.Module):
    """A linear layer in int8: a scale a token, found in the call, and one an output channel."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        plain = isinstance(linear, nn.Linear)
        weight = (linear.weight if plain else linear.weight.t()).detach().float()
        scale = (weight.abs().amax(1) / 127).clamp(min=1e-12)
        self.weight = (weight / scale[:, None]).round().to(torch.int8)
        self.scale, self.bias = scale[None], getattr(linear, "bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        scale = (flat.abs().amax(-1, keepdim=True).float() / 127).clamp(min=1e-12)
        narrow = (flat / scale).round().clamp(-127, 127).to(torch.int8)
        out = (torch._int_mm(narrow, self.weight.t()) * scale * self.scale).to(torch.bfloat16)
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], -1)


def quantized(module: nn.Module) -> nn.Module:
    """The module in bf16 with its linear layers in int8, heads apart."""
    for name, child in module.named_children():
        if child.__class__.__name__ == "Linear" and name not in ("head", "classifier", "lm_head"):
            setattr(module, name, DynamicInt8(child))
        else:
            quantized(child)
    return module


def build(folder: Path) -> None:
    """Writes every network in float32, and statically quantised by ONNX Runtime's own tool."""
    from onnxruntime import quantization  # noqa: PLC0415 (an extra)

    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, (_, value), key) in networks().items():
        path = folder / f"{name}.onnx"
        if (folder / f"{name}.int8.onnx").exists():
            continue
        export(module, {key: value}, path, dims={key: {}})

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, key: str, value: torch.Tensor) -> None:
                self.left = [{key: value.numpy()}]

            def get_next(self) -> Any:
                return self.left.pop() if self.left else None

        quantization.quantize_static(
            path, folder / f"{name}.int8.onnx", Reader(key, value), per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )  # fmt: skip


def _session(path: Path) -> Callable[[dict[str, Any]], object]:
    import onnxruntime  # noqa: PLC0415 (an extra)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def _times(call: Callable[[], object]) -> tuple[float, float, float]:
    """Milliseconds: least and median of calls on cold caches, least of calls back to back."""
    other = np.ones(COLD_BYTES // 4, dtype=np.float32)
    found: dict[bool, list[float]] = {True: [], False: []}
    for cold in (False, True):
        for _ in range(3):
            call()
        for _ in range(CALLS):
            if cold:
                other.sum()
            start = time.perf_counter()
            call()
            found[cold].append(1e3 * (time.perf_counter() - start))
    return min(found[True]), float(np.median(found[True])), min(found[False])


def measure(folder: Path) -> None:
    """Times every network in every format that its runtime has."""
    rows = []
    for name, (module, (_, value), key) in networks().items():
        for runtime, dtype in FORMATS:
            if runtime == "torch-cpu":
                if dtype == "int8" and value.dim() == 4:
                    continue
                chosen = module if dtype == "fp32" else module.to(torch.bfloat16)
                if dtype == "int8":
                    chosen = quantized(chosen)
                whole = dtype == "fp32" or value.dtype == torch.int64
                given = value if whole else value.bfloat16()
                if given.dim() == 4:
                    chosen = chosen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                    given = given.to(memory_format=torch.channels_last)
                with torch.inference_mode():
                    found = _times(lambda run=chosen, x=given: run(x))  # type: ignore[misc]
            else:
                run = _session(folder / f"{name}{'.int8' if dtype == 'int8' else ''}.onnx")
                feeds = {key: value.numpy()}
                found = _times(lambda run=run, feeds=feeds: run(feeds))  # type: ignore[misc]
            row = {"network": name, "runtime": runtime, "dtype": dtype}
            rows.append(row | dict(zip(("ms", "median_ms", "warm_ms"), found, strict=True)))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).round(4).to_csv(RESULT, index=False)


def compare(folder: Path, device: str) -> None:
    """Prices what was measured."""
    import dse  # noqa: PLC0415 (what measures needs none of it)

    rows = pd.read_csv(RESULT)
    models = {name: dse.load(folder / f"{name}.onnx") for name in rows["network"].unique()}
    costs = [
        models[name].predict(f"{device}:{runtime}", FORMATS[runtime, dtype]).cost
        for name, runtime, dtype in rows[["network", "runtime", "dtype"]].to_numpy()
    ]
    rows["predicted_ms"] = [1e3 * cost.latency_s for cost in costs]
    rows["low_ms"], rows["high_ms"] = (
        [1e3 * getattr(cost, name) for cost in costs] for name in ("low_s", "high_s")
    )
    rows["error"] = rows["predicted_ms"] / rows["ms"] - 1
    rows.round(4).to_csv(RESULT, index=False)
    print(rows.round(3).to_string())
    for key, part in [("all", rows), *rows.groupby(["runtime", "dtype"])]:
        rank = spearmanr(part["ms"], part["predicted_ms"]).statistic
        print(key, len(part), "median error", round(part["error"].abs().median(), 3),
              "Spearman", round(float(rank), 3))  # fmt: skip


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "measure", "compare"))
    parser.add_argument("--folder", type=Path, required=True, help="Of the ONNX files.")
    parser.add_argument("--device", default="zen4-2c")
    arguments = parser.parse_args()
    if arguments.step == "compare":
        compare(arguments.folder, arguments.device)
    else:
        (build if arguments.step == "build" else measure)(arguments.folder)


if __name__ == "__main__":
    main()
