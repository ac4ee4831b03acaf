"""Cases: a hostile file in a folder of sound ones, and the command line that reads it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from tests.hostile import mutate, seeds
from tests.hostile.answer import Answer, answer

PRICED = ["--device", "h100-sxm", "--format", "w8a8_fp8", "--dim", "batch=2"]
MLP = ["predict", "mlp.onnx", "--format", "w4a16", "--dim", "batch=2"]
CPU = ["--device", "cpu-avx2"]

Case = Callable[[random.Random, Path], list[str]]


def prepare(folder: Path) -> None:
    """Writes the sound files, and a run folder of them."""
    for name, build in seeds.MODELS.items():
        (folder / f"{name}.onnx").write_bytes(build().SerializeToString())
    (folder / "mlp.npz").write_bytes(seeds.npz(seeds.arrays()))
    (folder / "space.yaml").write_text(yaml.safe_dump(dict(seeds.SPACE), sort_keys=False))
    (folder / "table.csv").write_text(seeds.TABLE)
    made = answer(["search", "space.yaml", "--out", "sound"], folder)
    if made.code:
        raise RuntimeError(made.text)


def onnx(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.onnx").write_bytes(mutate.model(rng))
    return rng.choice((
        ["predict", "case.onnx", *PRICED, *rng.choice(([], ["--dim", "sequence=4"]))],
        ["init", "case.onnx", "-o", "case.yaml"],
        ["evaluate", "case.onnx", "--data", "mlp.npz", "--format", "w8a8_int8", "--samples", "4"],
    ))  # fmt: skip


def space(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.yaml").write_bytes(mutate.yaml_file(rng, dict(seeds.SPACE)))
    search = ["search", "case.yaml", "--out", "case"]
    return rng.choice((["check", "case.yaml"], ["check", "case.yaml"], search))


def device(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.yaml").write_bytes(mutate.device(rng))
    return [*MLP, "--device", "case.yaml"]


def arrays(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.npz").write_bytes(mutate.archive(rng))
    return [
        "evaluate",
        "mlp.onnx",
        "--data",
        "case.npz",
        "--format",
        "w8a8_int8",
        "--samples",
        "4",
    ]


def operators(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.csv").write_bytes(mutate.table(rng, seeds.TABLE))
    return rng.choice((
        ["predict-ops", "case.csv", *CPU, "-o", "case.out.csv"],
        ["fit", "case.csv", *CPU, "-o", "case.out.yaml"],
        ["tell", "sound", "case.csv"],
    ))  # fmt: skip


def scores(rng: random.Random, folder: Path) -> list[str]:
    sound = (folder / "sound" / "sensitivity.csv").read_text()
    (folder / "case.csv").write_bytes(mutate.table(rng, sound))
    limit = ["--constraint", "weight_bytes<=1e9", "-o", "case.json"]
    return ["solve", "space.yaml", "--scores", "case.csv", *limit]


def run(rng: random.Random, folder: Path) -> list[str]:
    copied = folder / "case"
    shutil.copytree(folder / "sound", copied)
    files = sorted(path for path in copied.rglob("*") if path.suffix in (".json", ".csv", ".log"))
    path = rng.choice(files)
    path.write_bytes(mutate.run_file(rng, path))
    return rng.choice((
        ["report", "case"], ["export", "case", "--to", "recipe", "-o", "case.json"],
        ["compare", "sound", "case"], ["search", "--out", "case", "--resume"],
        ["search", "--from", "case", "--target", "a100-sxm-80gb", "--out", "case.new"],
        ["propose", "case", "--count", "1", "-o", "case.out"],
    ))  # fmt: skip


CASES: Mapping[str, tuple[Case, int]] = {
    "onnx": (onnx, 50), "space": (space, 14), "device": (device, 10), "arrays": (arrays, 6),
    "operators": (operators, 8), "scores": (scores, 4), "run": (run, 8),
}  # fmt: skip
"""Kinds of inputs, and how many of a hundred cases are of each."""


def answered(kind: str, rng: random.Random, folder: Path) -> tuple[list[str], Answer]:
    """The command line of a case and its end; what the case wrote stays until the next."""
    for path in folder.glob("case*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    arguments = CASES[kind][0](rng, folder)
    return arguments, answer(arguments, folder)
