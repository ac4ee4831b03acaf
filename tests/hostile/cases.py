"""Cases: a hostile file in a folder of sound ones, and the command line that reads it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from tests.hostile import checkpoints, mutate, seeds
from tests.hostile.answer import Answer, Answerer

PRICED = ["--device", "h100-sxm", "--format", "w8a8_fp8", "--dim", "batch=2"]
MLP = ["predict", "mlp.onnx", "--format", "w4a16", "--dim", "batch=2"]
CPU = ["--device", "cpu-avx2"]
EVALUATED = ["--data", "mlp.npz", "--samples", "4"]
COMPILED_S = 100
"""Seconds of CPU in which a machine compiles the kernels that it has not used before."""

Case = Callable[[random.Random, Path], list[str]]


def prepare(folder: Path, answer: Answerer) -> None:
    """Writes the sound files, and run folders of them."""
    for name, build in seeds.MODELS.items():
        (folder / f"{name}.onnx").write_bytes(build().SerializeToString())
    (folder / "mlp.npz").write_bytes(seeds.npz(seeds.arrays()))
    (folder / "table.csv").write_text(seeds.TABLE)
    checkpoints.save(folder)
    for name, space in {"sound": seeds.SPACE, "language": checkpoints.SPACE}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(dict(space), sort_keys=False))
        made = answer(["search", f"{name}.yaml", "--out", name], folder, cpu_s=COMPILED_S)
        if made.code:
            raise RuntimeError(made.text)
    found = json.loads((folder / "sound" / "recommended.json").read_bytes())
    (folder / "assignment.json").write_text(json.dumps(found["assignment"]))


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
    (folder / "case.yaml").write_bytes(mutate.shipped(rng, rng.choice(("devices", "runtimes"))))
    platform = ["--device", "case.yaml"], ["--device", "h100-sxm", "--runtime", "case.yaml"]
    return [*MLP, *rng.choice(platform)]


def arrays(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.npz").write_bytes(mutate.archive(rng))
    return ["evaluate", "mlp.onnx", "--data", "case.npz", "--format", "w8a8_int8",
            "--samples", "4"]  # fmt: skip


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
    return ["solve", "sound.yaml", "--scores", "case.csv", *limit]


def run(rng: random.Random, folder: Path) -> list[str]:
    _torn(rng, folder, "sound")
    return rng.choice((
        ["report", "case"], ["export", "case", "--to", "recipe", "-o", "case.json"],
        ["compare", "sound", "case"], ["search", "--out", "case", "--resume"],
        ["search", "--from", "case", "--target", "a100-sxm-80gb", "--out", "case.new"],
        ["propose", "case", "--number", "1", "-o", "case.out"],
    ))  # fmt: skip


def export(rng: random.Random, folder: Path) -> list[str]:
    """A run folder that something is wrong with, as what a runtime loads."""
    target, source = rng.choice((
        ("onnx-qdq", "sound"), ("compressed-tensors", "language"), ("modelopt", "language"),
        ("gguf", "language"),
    ))  # fmt: skip
    _torn(rng, folder, source)
    return ["export", "case", "--to", target, "-o", "case.out"]


def _torn(rng: random.Random, folder: Path, name: str) -> None:
    """A copy of a run folder with one file changed."""
    copied = folder / "case"
    shutil.copytree(folder / name, copied)
    suffixes = (".json", ".csv", ".log", ".safetensors")
    path = rng.choice(sorted(path for path in copied.rglob("*") if path.suffix in suffixes))
    path.write_bytes(mutate.run_file(rng, path))


def assignment(rng: random.Random, folder: Path) -> list[str]:
    (folder / "case.json").write_bytes(mutate.json_file(rng, folder / "assignment.json"))
    return rng.choice((
        ["evaluate", "mlp.onnx", "--assignment", "case.json", *EVALUATED],
        ["predict", "mlp.onnx", "--assignment", "case.json", "--dim", "batch=2", *CPU],
        ["legal", "mlp.onnx", "--assignment", "case.json", "--dim", "batch=2", *CPU],
    ))  # fmt: skip


def checkpoint(rng: random.Random, folder: Path) -> list[str]:
    """A Hugging Face folder with one or two files changed."""
    copied = folder / "case"
    shutil.copytree(folder / "llama", copied)
    for _ in range(rng.choice((1, 1, 2))):
        path = copied / rng.choice(("config.json", "config.json", "model.safetensors"))
        path.write_bytes(mutate.checkpoint_file(rng, path))
    return rng.choice((
        ["predict", "case", *PRICED, "--dim", "sequence=4"], ["init", "case", "-o", "case.yaml"],
        ["import", "case", "-o", "case.onnx"],
    ))  # fmt: skip


def text(rng: random.Random, folder: Path) -> list[str]:
    """A tokenizer, a text or tasks with something changed; the network is sound."""
    copied = folder / "case"
    shutil.copytree(folder / "llama", copied)
    for name in ("text.txt", "choices.jsonl", "tasks.yaml"):
        shutil.copy(folder / name, folder / f"case.{name}")
    path = rng.choice((
        copied / "tokenizer.json", copied / "tokenizer_config.json", folder / "case.text.txt",
        folder / "case.choices.jsonl", folder / "case.tasks.yaml",
    ))  # fmt: skip
    path.write_bytes(mutate.text_file(rng, path))
    read = rng.choice((["--data", "case.text.txt"], ["--tasks", "case.tasks.yaml"]))
    return ["evaluate", "case", "--format", "w8a8_int8", *read, "--samples", "2"]


def gguf(rng: random.Random, folder: Path) -> list[str]:
    sound = (folder / "llama.gguf").read_bytes()
    (folder / "case.gguf").write_bytes(mutate.flipped(rng, sound))
    return ["import", "case.gguf", "-o", "case"]


CASES: Mapping[str, tuple[Case, int]] = {
    "onnx": (onnx, 46), "space": (space, 12), "device": (device, 8), "arrays": (arrays, 5),
    "operators": (operators, 6), "scores": (scores, 3), "run": (run, 7), "export": (export, 4),
    "assignment": (assignment, 4), "checkpoint": (checkpoint, 2), "text": (text, 2),
    "gguf": (gguf, 1),
}  # fmt: skip
"""Kinds of inputs, and how many of a hundred cases are of each."""


def kind_of(case: int) -> str:
    """The kind of a case's input."""
    kinds = [kind for kind, (_, share) in CASES.items() for _ in range(share)]
    return kinds[case % len(kinds)]


def answered(case: int, folder: Path, answer: Answerer) -> tuple[list[str], Answer]:
    """The command line of a case and its end; what the case wrote stays until the next."""
    for path in folder.glob("case*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    arguments = CASES[kind_of(case)][0](random.Random(case), folder)
    return arguments, answer(arguments, folder)
