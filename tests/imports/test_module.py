"""A torch module is a model: its outputs, its names, its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import dse
from dse.errors import GraphError


class Block(nn.Module):
    """A residual layer of two products."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., 8)."""
        update: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return x + self.drop(update)


class Tagger(nn.Module):
    """Tokens and a shift to scores and a norm; the table is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 8)
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 32, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, shift: Tensor) -> dict[str, Tensor]:
        """tokens: (batch, sequence), shift: (batch,)."""
        x = self.embed(tokens) + shift[:, None, None]
        for layer in self.layers:
            x = layer(x)
        return {"scores": self.head(x), "norm": x.norm(dim=-1)}


class Counting(nn.Module):
    """A loop whose length depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 4)."""
        while float(x.sum()) < 10.0:
            x = x + 1
        return x


def test_outputs_names_and_ties_are_the_modules(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tagger().train()
    tokens, shift = torch.randint(0, 32, (1, 5)), torch.rand(1)
    model = dse.from_torch(
        module,
        {"tokens": tokens, "shift": shift},
        path=tmp_path / "tagger.onnx",
        dims={"tokens": {0: "batch", 1: "sequence"}, "shift": {0: "batch"}},
    )
    assert all(part.training for part in module.modules())
    assert model.dimensions == ("batch", "sequence")
    sites = {site.key for site in model.model.analysis.sites}
    assert {"layers.0.fc1/in1", "layers.1.fc2/in1", "head/in1"} <= sites
    sizes = [item.numpy().size for item in model.model.graph.initializers.values()]
    wanted = sum(parameter.numel() for parameter in module.parameters())
    assert wanted <= sum(sizes) < wanted + 32  # a tied table once, and constants
    tokens, shift = torch.randint(0, 32, (3, 7)), torch.rand(3)
    expected = module.eval()(tokens, shift)
    session = onnxruntime.InferenceSession(tmp_path / "tagger.onnx")
    feeds = {"tokens": tokens.numpy(), "shift": shift.numpy()}
    for name in ("scores", "norm"):
        (got,) = session.run([name], feeds)
        np.testing.assert_allclose(got, expected[name].detach().numpy(), atol=1e-5)


def test_the_same_module_is_the_same_file_and_others_are_others() -> None:
    torch.manual_seed(0)
    module = Block()
    first = dse.from_torch(module, torch.rand(2, 8))
    assert dse.from_torch(module, (torch.rand(1, 8),)).source == first.source
    with torch.no_grad():
        module.fc1.weight.add_(1)
    assert dse.from_torch(module, torch.rand(2, 8)).source != first.source
    assert first.predict("h100-sxm", dims={"batch": 4}).cost.weight_bytes > 0


def test_large_weights_lie_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.imports.module.LARGEST_FILE", 100)
    model = dse.from_torch(Block(), torch.rand(2, 8), path=tmp_path / "block.onnx")
    assert (tmp_path / "block.onnx.data").is_file()
    assert model.model.graph.has_weights


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Block(), torch.rand(2, 9), "forward fails on the example"),
        (Block(), (torch.rand(2, 8), torch.rand(2, 8)), "has 2 inputs, forward takes 1"),
        (Block(), {"x": [1.0]}, "must be tensors, got list for 'x'"),
        (Block(), (), "must be tensors, got nothing"),
        (Counting(), torch.rand(2, 4), "torch cannot export it"),
        (nn.LSTM(4, 4), torch.rand(2, 3, 4), "expected tensors"),
        ("model.pt", torch.rand(2), "expected a torch.nn.Module, got str"),
    ],
)
def test_what_cannot_be_exported_is_one_message(module: Any, example: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        dse.from_torch(module, example)


def test_free_axes_of_no_input_are_refused() -> None:
    with pytest.raises(GraphError, match="expected inputs: x"):
        dse.from_torch(Block(), torch.rand(2, 8), dims={"y": {0: "batch"}})
