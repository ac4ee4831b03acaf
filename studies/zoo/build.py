"""Builds the package data of the zoo: `python studies/zoo/build.py CHECKPOINTS FASHION_MNIST`.

CHECKPOINTS holds what the two training scripts wrote. Writes dse/zoo/<name>/model.onnx and the
images of fashion-resnet, and checks every graph against torch under ONNX Runtime.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dse.zoo import resolve
from dse.zoo.data import IMAGES_FILE
from dse.zoo.export import export, export_shape_graph
from dse.zoo.llama import Llama, WrittenOut
from dse.zoo.resnet import ResNet, ResNetConfig
from dse.zoo.shapes import LLAMA_SHAPES
from studies.zoo.train_byte_gpt import BYTE_GPT
from studies.zoo.train_fashion_resnet import read_idx

CALIBRATION_IMAGES = 256
TEST_IMAGES = 2000
TOLERANCE = 2e-3
SHAPES = ("llama-3-8b", "llama-3-70b")
"""Graphs without weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("fashion_mnist", type=Path)
    arguments = parser.parse_args()
    build_byte_gpt(arguments.checkpoints)
    build_fashion_resnet(arguments.checkpoints)
    build_images(arguments.fashion_mnist)
    for name in SHAPES:
        export_shape_graph(LLAMA_SHAPES[name], resolve(name).path)


def build_byte_gpt(checkpoints: Path) -> None:
    model = Llama(BYTE_GPT).eval()
    model.load_state_dict(load_file(checkpoints / "byte-gpt.safetensors"))
    path = resolve("byte-gpt").path
    example = torch.randint(256, (2, 40))
    export(
        WrittenOut(model).eval(), {"tokens": example}, path,
        dims={"tokens": {0: "batch", 1: "sequence"}},
    )  # fmt: skip
    check(path, model, [torch.randint(256, shape) for shape in ((1, 7), (3, 256))])


def build_fashion_resnet(checkpoints: Path) -> None:
    model = ResNet(ResNetConfig()).eval()
    model.load_state_dict(load_file(checkpoints / "fashion-resnet.safetensors"))
    images = [torch.randn(batch, 1, 28, 28) for batch in (1, 5)]
    reference = [model(image) for image in images]
    model.fold_batch_norms()
    for image, logits in zip(images, reference, strict=True):
        torch.testing.assert_close(model(image), logits, atol=TOLERANCE, rtol=0)
    path = resolve("fashion-resnet").path
    export(model, {"image": torch.randn(2, 1, 28, 28)}, path, dims={"image": {0: "batch"}})
    check(path, model, images)


def check(path: Path, module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises if the file is not valid ONNX or computes something else than the module."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    if "" in names or len(set(names)) != len(names):
        raise ValueError(f"{path}: node names are empty or repeat")
    session = onnxruntime.InferenceSession(path)
    for value in inputs:
        (logits,) = session.run(None, {model.graph.input[0].name: value.numpy()})
        worst = numpy.abs(logits - module(value).detach().numpy()).max()
        print(f"{path.parent.name} {tuple(value.shape)}: largest difference {worst:.1e}")
        if not worst < TOLERANCE:
            raise ValueError(f"{path}: differs from torch by {worst}")


def build_images(folder: Path) -> None:
    """Calibration images from the training part; search and report halves of the test part."""
    arrays = {}
    train = read_idx(folder / "train-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    train_labels = read_idx(folder / "train-labels-idx1-ubyte.gz", header=8)
    spread = numpy.arange(CALIBRATION_IMAGES) * len(train) // CALIBRATION_IMAGES
    arrays["calibration_images"] = train[spread]
    arrays["calibration_labels"] = train_labels[spread]
    test = read_idx(folder / "t10k-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    test_labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", header=8)
    half = TEST_IMAGES // 2
    for split, rows in (("search", slice(half)), ("report", slice(half, TEST_IMAGES))):
        arrays[f"{split}_images"] = test[rows]
        arrays[f"{split}_labels"] = test_labels[rows]
    numpy.savez_compressed(IMAGES_FILE, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
