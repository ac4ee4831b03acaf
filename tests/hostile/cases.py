"""Cases: a hostile file in a folder of sound ones, and the command line that reads it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import yaml

from tests.bench import outputs
from tests.hostile import checkpoints, mutate, seeds
from tests.hostile.answer import Answer, Answerer

PRICED = ["--device", "h100-sxm", "--format", "w8a8_fp8", "--dim", "batch=2"]
MLP = ["predict", "mlp.onnx", "--format", "w4a16", "--dim", "batch=2"]
CPU = ["--device", "cpu-avx2"]
SEARCHED = ["--target", "h100-sxm", "--data", "mlp.npz", "--trials", "2", "--out", "case"]
EXPORTED = (
    ("onnx-qdq", "sound", "w4a16"), ("tensorrt", "sound", "w4a16"),
    ("aimet", "sound", "w4a16"), ("litert", "integer", "w8a8_int8_static"),
    ("compressed-tensors", "language", "w8a8_fp8"), ("modelopt", "language", "w8a8_fp8"),
    ("gguf", "language", "blocks"), ("mlx", "language", "blocks"),
    ("torchao", "language", "blocks"),
)  # fmt: skip
"""Exporters, run folders, and the choice of theirs that can be exported so."""
EVALUATED = ["--data", "mlp.npz", "--samples", "4"]
COMPILED_S = 100
"""Seconds of CPU in which a machine compiles the kernels that it has not used before."""

ROWS = (outputs.bench_row("a.gguf", 8, 0, 0, 0.25), outputs.bench_row("a.gguf", 0, 8, 8, 1.28))
RESULTS: tuple[Callable[[Path], object], ...] = (
    lambda folder: outputs.lm_eval(folder, {"arc_easy": {"acc": (0.71, 0.01)}}),
    lambda folder: outputs.vllm_serve(
        folder, prompt=8, generated=8, requests=1, ttft_ms=50, tpot_ms=10
    ),
    lambda folder: outputs.vllm_latency(folder, "vllm_batch1_input8_output1.json", 0.4),
    lambda folder: outputs.vllm_throughput(folder, prompt=8, generated=8, per_second=3),
    lambda folder: outputs.llama_perplexity(folder, 5.5, 0.05, "0.010000 ± 0.000100", 5.4),
    lambda folder: outputs.llama_bench(folder, ROWS, "json"),
    lambda folder: outputs.llama_bench(folder, ROWS, "csv"),
    lambda folder: outputs.llama_bench(folder, ROWS, "md"),
)
"""Sound results of tools."""

Case = Callable[[random.Random, Path], list[str]]


def prepare(folder: Path, answer: Answerer) -> None:
    """Writes the sound files, and run folders of them."""
    for name, build in seeds.MODELS.items():
        (folder / f"{name}.onnx").write_bytes(build().SerializeToString())
    (folder / "mlp.npz").write_bytes(seeds.npz(seeds.arrays()))
    (folder / "table.csv").write_text(seeds.TABLE)
    checkpoints.save(folder)
    spaces = {"sound": seeds.SPACE, "integer": seeds.INTEGER, "language": checkpoints.SPACE}
    for name, space in spaces.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(dict(space), sort_keys=False))
        made = answer(["search", f"{name}.yaml", "--out", name], folder, cpu_s=COMPILED_S)
        if made.code:
            raise RuntimeError(made.text)
    written = answer(["annotate", "sound", "-o", "annotated.onnx"], folder)
    if written.code:
        raise RuntimeError(written.text)
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
    target, source, choice = rng.choice(EXPORTED)
    trial = trial_of(folder / source, choice)
    _torn(rng, folder, source)
    return ["export", "case", "--trial", trial, "--to", target, "-o", "case.out"]


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


def annotated(rng: random.Random, folder: Path) -> list[str]:
    """A model that says which formats its tensors may take."""
    (folder / "case.onnx").write_bytes(mutate.annotated_model(rng, folder / "annotated.onnx"))
    return rng.choice((
        ["search", "case.onnx", *SEARCHED], ["search", "case.onnx", *SEARCHED],
        ["predict", "mlp.onnx", "--assignment", "case.onnx", "--dim", "batch=2", *CPU],
        ["init", "case.onnx", "-o", "case.yaml"],
    ))  # fmt: skip


def told(rng: random.Random, folder: Path) -> list[str]:
    """What a scorer or a benchmark has written of a run's assignments."""
    copied = folder / "case"
    shutil.copytree(folder / "language", copied)
    results = folder / "case.results"
    digest = digest_of(copied)
    rng.choice(RESULTS)(results / rng.choice((digest, digest, "reference")))
    path = next(path for path in results.rglob("*") if path.is_file())
    path.write_bytes(mutate.text_file(rng, path))
    return ["tell", "case", "case.results"]


def digest_of(run: Path) -> str:
    """The digest of a run's first assignment."""
    return str(pd.read_csv(run / "trials.csv", dtype=str).digest.iloc[0])


def trial_of(run: Path, choice: str) -> str:
    """The number of the trial that has one choice everywhere."""
    trials = pd.read_csv(run / "trials.csv", dtype=str)
    return str(trials[trials.name == choice].trial.iloc[0])


def checkpoint(rng: random.Random, folder: Path) -> list[str]:
    """A Hugging Face folder with one or two files changed."""
    copied = folder / "case"
    shutil.copytree(folder / "encoder", copied)
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
    "assignment": (assignment, 2), "annotated": (annotated, 1), "told": (told, 1),
    "checkpoint": (checkpoint, 2), "text": (text, 2), "gguf": (gguf, 1),
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
