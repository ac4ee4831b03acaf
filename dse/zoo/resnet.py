"""A residual CNN for small images, and the folding of its batch norms for export."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """Sizes of the network: one stage a width, each stage after the first halves the image."""

    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2
    """Residual blocks of a stage."""
    classes: int = 10


class ConvNorm(nn.Module):
    """A convolution and its batch norm, or after folding the convolution alone."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (batch, outputs, height / stride, width / stride)."""
        normed: Tensor = self.norm(self.conv(x))
        return normed

    def fold(self) -> None:
        """Moves the norm's running statistics into the convolution; eval mode only."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel=3, stride=stride)
        self.conv2 = ConvNorm(outputs, outputs, kernel=3)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = ConvNorm(inputs, outputs, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(shortcut(x) + conv2(relu(conv1(x))))."""
        return functional.relu(self.shortcut(x) + self.conv2(functional.relu(self.conv1(x))))


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pool, linear classifier."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stem = ConvNorm(config.channels, config.widths[0], kernel=3)
        blocks: list[Block] = []
        inputs = config.widths[0]
        for stage, width in enumerate(config.widths):
            for index in range(config.blocks):
                stride = 2 if stage and not index else 1
                blocks.append(Block(inputs, width, stride=stride))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (batch, classes) of `image: (batch, channels, height, width)`."""
        features = self.blocks(functional.relu(self.stem(image)))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits

    def fold_batch_norms(self) -> ResNet:
        """Returns this network in eval mode with every batch norm folded, in place."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self
