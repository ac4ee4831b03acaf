"""Models exported by torch, once a session."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from dse.execute.program.program import Program
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load

VOCABULARY = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A model, its file and feeds for it."""

    path: Path
    graph: Graph
    program: Program
    module: nn.Module
    feeds: dict[str, Tensor]


class Recurrent(nn.Module):
    """A bidirectional LSTM, a GRU and a plain RNN behind one another."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, num_layers=2, bidirectional=True)
        self.gru = nn.GRU(32, 16)
        self.rnn = nn.RNN(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.gru(self.lstm(x)[0])[0])[0]


class Hybrid(nn.Module):
    """What the others lack: Gemm, grouped and transposed convolution, pooling, normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GroupNorm(2, 8), nn.SiLU(),
            nn.MaxPool2d(3, 2, 1), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.InstanceNorm2d(6),
            nn.PReLU(6), nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 16), nn.Mish(), nn.Dropout(),
            nn.LayerNorm(16), nn.Linear(16, 10), nn.Softmax(-1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _llm(kind: str) -> nn.Module:
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_layer=2, n_head=4, n_embd=64, vocab_size=VOCABULARY, n_positions=64,
            bos_token_id=0, eos_token_id=0, use_cache=False,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=64,
        intermediate_size=128, vocab_size=VOCABULARY, use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _vision(kind: str) -> nn.Module:
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(
            num_hidden_layers=2, num_attention_heads=4, hidden_size=64, intermediate_size=128,
            image_size=32, patch_size=8,
        ))  # fmt: skip
    # The layers of ResNet-18 (basic blocks, 2-2-2-2), a quarter as wide.
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[2, 2, 2, 2], layer_type="basic",
    ))  # fmt: skip


def _tokens() -> Tensor:
    return torch.randint(0, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(1))


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], dict[str, object]]] = {
    "gpt2-dynamo18": (lambda: _llm("gpt2"), _tokens, {"opset_version": 18}),
    "llama-dynamo18": (lambda: _llm("llama"), _tokens, {"opset_version": 18}),
    "llama-dynamo23": (lambda: _llm("llama"), _tokens, {"opset_version": 23}),
    "vit-dynamo18": (lambda: _vision("vit"), lambda: _noise(2, 3, 32, 32), {"opset_version": 18}),
    "vit-dynamo23": (lambda: _vision("vit"), lambda: _noise(2, 3, 32, 32), {"opset_version": 23}),
    "vit-torchscript17": (
        lambda: _vision("vit"), lambda: _noise(2, 3, 32, 32),
        {"opset_version": 17, "dynamo": False},
    ),
    "resnet18-dynamo18": (
        lambda: _vision("resnet"), lambda: _noise(2, 3, 64, 64), {"opset_version": 18},
    ),
    "resnet18-torchscript13": (
        lambda: _vision("resnet"), lambda: _noise(2, 3, 64, 64),
        {"opset_version": 13, "dynamo": False},
    ),
    "recurrent-torchscript14": (
        Recurrent, lambda: _noise(5, 3, 12), {"opset_version": 14, "dynamo": False},
    ),
    "hybrid-torchscript11": (
        Hybrid, lambda: _noise(2, 3, 32, 32), {"opset_version": 11, "dynamo": False},
    ),
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _export(name: str, folder: Path) -> Exported:
    make, inputs, own = MODELS[name]
    options: dict[str, Any] = {"dynamo": True, "verbose": False, **own}
    torch.manual_seed(0)
    module, fed, path = make().eval(), inputs(), folder / f"{name}.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # The exporters' own code warns of what torch, copyreg and onnxscript deprecate.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (fed,), path, **options)
    graph = load(path)
    return Exported(
        path=path, graph=graph, program=Program(graph), module=module,
        feeds={graph.inputs[0]: fed},
    )  # fmt: skip


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """A model of `MODELS` by name."""
    folder = tmp_path_factory.mktemp("exported")
    found: dict[str, Exported] = {}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    def get(name: str) -> Exported:
        if name not in found:
            found[name] = _export(name, folder)
        return found[name]

    return get
