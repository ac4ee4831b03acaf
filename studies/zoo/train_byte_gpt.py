"""Trains byte-gpt on one GPU: `python studies/zoo/train_byte_gpt.py TEXT OUT --minutes 6.5`.

TEXT is the folder that `corpus.py` wrote. Writes OUT/byte-gpt.safetensors and OUT/byte-gpt.json
(settings, validation curve, scores beside xz). The learning rate follows the clock, not a step
count, so a run always ends annealed and in time.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import time
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dse.zoo.llama import Llama, LlamaConfig

BYTE_GPT = LlamaConfig(
    vocabulary=256, width=256, layers=6, heads=8, kv_heads=4, ffn_width=512, rope_base=10_000.0
)
CONTEXT = 512
# Share of each source in a batch. The library is what the model is for, but it is small: at a
# larger share it would be repeated hundreds of times.
MIXTURE = {"books": 0.62, "library": 0.23, "tests": 0.15}
MUON_PEAK = 0.02
ADAM_PEAK = 0.004
WEIGHT_DECAY = 0.1
WARMUP = 0.01
ANNEAL_FROM = 0.35
SEED = 0


class Muon:
    """Momentum whose matrix updates are orthogonalised (Jordan et al. 2024), batched by shape."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        shapes = sorted({tuple(weight.shape) for weight in weights})
        self.groups = [[w for w in weights if tuple(w.shape) == shape] for shape in shapes]
        self.momenta = [torch.zeros_like(torch.stack(list(group))) for group in self.groups]

    @torch.no_grad()
    def step(self, rate: float, momentum: float = 0.95) -> None:
        for group, momenta in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack(cast("list[Tensor]", [weight.grad for weight in group]))
            momenta.lerp_(gradient, 1 - momentum)
            update = orthogonal(gradient.lerp(momenta, momentum))
            inputs, outputs = update.shape[-2:]
            update = update * max(1.0, outputs / inputs) ** 0.5
            for weight, change in zip(group, update, strict=True):
                weight.mul_(1 - rate * WEIGHT_DECAY).add_(change, alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly, by five quintic Newton-Schulz steps."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


def main() -> None:
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=6.5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    sources = {name: load(arguments.text / f"{name}.xz", arguments.device) for name in MIXTURE}
    held = json.loads(lzma.decompress((arguments.text / "held_out.json.xz").read_bytes()))
    model = Llama(BYTE_GPT).to(arguments.device)
    watched = {
        "library": "".join(held["validation"].values()).encode(),
        "books": lzma.decompress((arguments.text / "books_valid.xz").read_bytes())[:400_000],
        "trained_library": bytes(sources["library"][2_000_000:2_400_000].cpu().numpy()),
    }
    run = train(model, sources, watched, arguments, started)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), arguments.out / "byte-gpt.safetensors")
    record = {**run, "minutes": (time.monotonic() - started) / 60, "batch": arguments.batch}
    (arguments.out / "byte-gpt.json").write_text(json.dumps(record, indent=1))
    record["scores"] = {
        **{split: score(model, "".join(texts.values()).encode()) for split, texts in held.items()},
        "books_test": score(
            model, lzma.decompress((arguments.text / "books_test.xz").read_bytes())
        ),
    }
    (arguments.out / "byte-gpt.json").write_text(json.dumps(record, indent=1))
    print(json.dumps(record["scores"], indent=1))


def load(path: Path, device: str) -> Tensor:
    text = bytearray(lzma.decompress(path.read_bytes()))
    return torch.frombuffer(text, dtype=torch.uint8).to(device)


def train(
    model: Llama,
    sources: dict[str, Tensor],
    watched: dict[str, bytes],
    arguments: argparse.Namespace,
    started: float,
) -> dict[str, object]:
    """Trains until the clock says stop; returns the run's record."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=ADAM_PEAK, betas=(0.9, 0.95), weight_decay=0.0)
    forward = model if arguments.no_compile else torch.compile(model)
    curve: list[dict[str, float]] = []
    step, next_look, progress = 0, 0.1, 0.0
    while progress < 1:
        shape = annealed(progress)
        for group in adam.param_groups:
            group["lr"] = ADAM_PEAK * shape
        tokens = batch_of(sources, arguments.batch)
        with torch.autocast(arguments.device, dtype=torch.bfloat16):
            logits = forward(tokens[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        muon.step(MUON_PEAK * shape)
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        if step % 10 == 0:
            bits = loss.item() / math.log(2)  # Waits for the device, so the clock is true.
            progress = (time.monotonic() - started) / (60 * arguments.minutes)
            if progress > next_look:
                next_look += 0.1
                looks = {name: bits_per_byte(model, text) for name, text in watched.items()}
                curve.append({"step": step, "progress": progress, "train": bits, **looks})
                print(json.dumps(curve[-1]), flush=True)
    return {"steps": step, "bytes_seen": step * arguments.batch * CONTEXT, "curve": curve}


def annealed(progress: float) -> float:
    """Warm up, hold, then fall linearly to zero."""
    return min(progress / WARMUP + 0.01, 1.0, max(0.0, 1 - progress) / (1 - ANNEAL_FROM))


def batch_of(sources: dict[str, Tensor], rows: int) -> Tensor:
    """Random windows (rows, CONTEXT + 1) of the sources in the mixture's proportions."""
    windows = []
    for name, text in sources.items():
        count = round(rows * MIXTURE[name])
        starts = torch.randint(len(text) - CONTEXT - 1, (count, 1), device=text.device)
        windows.append(text[starts + torch.arange(CONTEXT + 1, device=text.device)])
    return torch.cat(windows).long()


@torch.no_grad()
def bits_per_byte(model: Llama, text: bytes) -> float:
    """Mean code length of a text, every byte predicted from 256 to 512 bytes before it.

    The first window predicts its bytes from what there is.
    """
    stride = CONTEXT // 2
    device = model.model.embed_tokens.weight.device
    # A leading newline stands for the text before the first byte.
    data = torch.frombuffer(bytearray(b"\n" + text), dtype=torch.uint8).long().to(device)
    total = 0.0
    starts = list(range(0, len(data) - 1, stride))
    for first in range(0, len(starts), 128):
        group = starts[first : first + 128]
        inputs = torch.zeros(len(group), CONTEXT, dtype=torch.long, device=device)
        targets = torch.full_like(inputs, -100)
        for row, start in enumerate(group):
            piece = data[start : start + CONTEXT + 1]
            # Bytes that the window before has predicted are context only.
            new = 0 if start == 0 else stride
            inputs[row, : len(piece) - 1] = piece[:-1]
            targets[row, new : len(piece) - 1] = piece[1 + new :]
        logits = model(inputs).float().flatten(0, 1)
        total += functional.cross_entropy(logits, targets.flatten(), reduction="sum").item()
    return total / math.log(2) / len(text)


def score(model: Llama, text: bytes) -> dict[str, float]:
    packed = len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    return {
        "bytes": len(text),
        "bits_per_byte": bits_per_byte(model, text),
        "xz_bits_per_byte": 8 * packed / len(text),
    }


if __name__ == "__main__":
    main()
