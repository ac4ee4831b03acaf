"""Trains fashion-resnet: `python studies/zoo/train_fashion_resnet.py DATA OUT --minutes 1.5`.

DATA holds Fashion-MNIST's four idx files (Debian: dataset-fashion-mnist). Writes
OUT/fashion-resnet.safetensors and OUT/fashion-resnet.json. The recipe is fixed beforehand: test
images are scored once, after the last step, and select nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from dse.zoo.images import normalised
from dse.zoo.resnet import ResNet, ResNetConfig

PEAK_RATE = 0.2
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1
WARMUP = 0.1
AVERAGE_DECAY = 0.998
PADDING = 2
HOLE = 8
SEED = 0


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    images, labels = load(arguments.data, "train", arguments.device)
    model = ResNet(ResNetConfig()).to(arguments.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average, steps = train(model, images, labels, arguments, started)
    test_images, test_labels = load(arguments.data, "t10k", arguments.device)
    record = {
        "steps": steps,
        "epochs": steps * arguments.batch / len(images),
        "minutes": (time.monotonic() - started) / 60,
        "test_accuracy_without_averaging": accuracy(model.eval(), test_images, test_labels),
        "test_accuracy": accuracy(average, test_images, test_labels),
        "test_accuracy_first_2000": accuracy(average, test_images[:2000], test_labels[:2000]),
        "train_accuracy": accuracy(average, images[:10_000], labels[:10_000]),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in average.state_dict().items()}
    save_file(state, arguments.out / "fashion-resnet.safetensors")
    (arguments.out / "fashion-resnet.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(record, indent=1))


def load(folder: Path, part: str, device: str) -> tuple[Tensor, Tensor]:
    """Normalised images (n, 1, 28, 28) and labels (n)."""
    pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", header=8)
    images = torch.from_numpy(normalised(pixels)).to(device)
    return images, torch.from_numpy(labels.astype(numpy.int64)).to(device)


def read_idx(path: Path, *, header: int) -> numpy.ndarray:
    return numpy.frombuffer(gzip.decompress(path.read_bytes()), numpy.uint8, offset=header)


def train(
    model: ResNet, images: Tensor, labels: Tensor, arguments: argparse.Namespace, started: float
) -> tuple[torch.nn.Module, int]:
    """Trains until the clock says stop; returns the averaged model and the steps taken."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0}],
        lr=PEAK_RATE, momentum=0.9, nesterov=True,
    )  # fmt: skip
    averaged = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY),
        use_buffers=True,
    )
    forward = model if arguments.no_compile else torch.compile(model)
    progress, steps = 0.0, 0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(
                progress / WARMUP, max(0.0, (1 - progress) / (1 - WARMUP))
            )
        chosen = torch.randint(len(images), (arguments.batch,), device=images.device)
        batch = augmented(images[chosen]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            logits = forward(batch)
        loss = functional.cross_entropy(
            logits.float(), labels[chosen], label_smoothing=LABEL_SMOOTHING
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        averaged.update_parameters(model)
        steps += 1
        if steps % 10 == 0:
            value = loss.item()  # Waits for the device, so the clock is true.
            progress = (time.monotonic() - started) / (60 * arguments.minutes)
            if steps % 1000 == 0:
                print(f"step {steps} progress {progress:.2f} loss {value:.3f}", flush=True)
    return averaged.module.eval(), steps


def augmented(images: Tensor) -> Tensor:
    """Images mirrored, shifted by up to two pixels and with one square hole, at random."""
    count, _, height, width = images.shape
    device = images.device
    mirror = torch.rand(count, 1, 1, 1, device=device) < 0.5
    images = torch.where(mirror, images.flip(-1), images)
    padded = functional.pad(images, (PADDING,) * 4, value=float(normalised(numpy.zeros(1))[0]))
    shift = torch.randint(2 * PADDING + 1, (2, count, 1), device=device)
    rows = torch.arange(height, device=device) + shift[0]
    columns = torch.arange(width, device=device) + shift[1]
    index = torch.arange(count, device=device)[:, None, None]
    images = padded[index, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    corner = torch.randint(-HOLE // 2, height - HOLE // 2, (2, count, 1), device=device)
    inside = [
        (torch.arange(size, device=device) >= start)
        & (torch.arange(size, device=device) < start + HOLE)
        for size, start in zip((height, width), corner, strict=True)
    ]
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0.0)


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    correct = sum(
        int((model(part).argmax(1) == truth).sum())
        for part, truth in zip(images.split(1000), labels.split(1000), strict=True)
    )
    return correct / len(labels)


if __name__ == "__main__":
    main()
