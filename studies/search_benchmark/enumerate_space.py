"""Measures every assignment of a prepared space, depth-first, on one GPU or on the CPU.

`python -m studies.search_benchmark.enumerate_space FOLDER... --device cuda --workers 12 --out OUT`

Needs torch and the graph part of the project only, so that a bare machine can run it. A task is a
prefix of choices on one split; under it, a changed choice re-executes what lies downstream of it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, multiprocessing

from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.program.trace import Trace
from dse.execute.weights.calibrate import load_calibration
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats import catalog
from studies.search_benchmark.fast import Cast, Casts

ROOT = Path(__file__).parents[2]
SPLITS = ("search", "report")
KEPT_SAMPLES = 2000
"""Assignments whose per-sample losses are kept, drawn with seed 0."""
KEEP_BYTES = 1 << 30

Bound = dict[str, Cast]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A subtree of one space on one split."""

    folder: Path
    split: str
    prefix: tuple[int, ...]


class Tree:
    """One space on one device: quantizers by variable and choice, full-precision references."""

    def __init__(self, folder: Path, device: str) -> None:
        description = json.loads((folder / "space.json").read_text())
        graph = load(ROOT / description["model"])
        by_key = Analysis(graph).by_key
        calibration = load_calibration(folder)
        casts = Casts(device)
        self.program = Program(graph, device=device)
        self.choices: list[list[Bound]] = []
        for variable in description["variables"]:
            self.choices.append([])
            for choice in variable["choices"]:
                assignment = Assignment.of(
                    {key: catalog.quantizer(name) for key, name in choice["sites"].items()}
                )
                bound = emulators(assignment, by_key, calibration)
                self.choices[-1].append(
                    {
                        key: casts.of(emulator, weight=by_key[key].role == "weight")
                        for key, emulator in bound.items()
                    }
                )
        self.slow = casts.slow
        self._feeds: dict[str, dict[str, Tensor]] = {}
        self._reference: dict[str, Tensor] = {}
        with np.load(folder / "feeds.npz") as archive:
            for split in SPLITS:
                self._feeds[split] = {
                    name.partition(".")[2]: torch.from_numpy(archive[name]).to(device)
                    for name in archive.files
                    if name.startswith(f"{split}.")
                }

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(choices) for choices in self.choices)

    def losses(self, task: Task) -> np.ndarray:
        """(leaves under the prefix, samples) divergences, in the order of `product`."""
        prefix = (*task.prefix, *[0] * (len(self.choices) - len(task.prefix)))
        with torch.inference_mode():
            self._prepare(task.split)
            trace = self.program.trace(
                self._feeds[task.split], self._bound(prefix), keep_bytes=KEEP_BYTES
            )
            found = list(self._below(trace, prefix, len(task.prefix), task.split))
            return torch.stack(found).float().cpu().numpy()

    def _below(
        self, trace: Trace, point: tuple[int, ...], depth: int, split: str
    ) -> Iterator[Tensor]:
        if depth == len(point):
            yield self._divergence(trace.execution.outputs, split)
            return
        for choice in range(len(self.choices[depth])):
            changed = (*point[:depth], choice, *point[depth + 1 :])
            if choice == point[depth]:
                yield from self._below(trace, changed, depth + 1, split)
            elif depth + 1 == len(point):
                execution = self.program.rerun(trace, self._bound(changed))
                yield self._divergence(execution.outputs, split)
            else:
                child = self.program.retrace(trace, self._bound(changed), keep_bytes=KEEP_BYTES)
                yield from self._below(child, changed, depth + 1, split)

    def _bound(self, point: Sequence[int]) -> Bound:
        bound: Bound = {}
        for choices, index in zip(self.choices, point, strict=True):
            bound |= choices[index]
        return bound

    def _prepare(self, split: str) -> None:
        if split not in self._reference:
            outputs = self.program.run(self._feeds[split]).outputs
            self._reference[split] = torch.log_softmax(self._logits(outputs), dim=-1)

    def _divergence(self, outputs: Mapping[str, Tensor], split: str) -> Tensor:
        """Mean KL divergence of each sample, as `dse.evaluate.quality` computes it."""
        reference = self._reference[split]
        log_q = torch.log_softmax(self._logits(outputs), dim=-1)
        divergence = (reference.exp() * (reference - log_q)).sum(dim=-1).clamp_min(0.0)
        return divergence.flatten(1).mean(dim=1) if divergence.dim() > 1 else divergence

    def _logits(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs[self.program.graph.outputs[0]].float()


def tasks(folder: Path, depth: int) -> list[Task]:
    """Every prefix of the first `depth` variables that have more than one choice."""
    variables = json.loads((folder / "space.json").read_text())["variables"]
    sizes = [len(variable["choices"]) for variable in variables]
    free = [index for index, size in enumerate(sizes) if size > 1]
    length = free[min(depth, len(free)) - 1] + 1
    prefixes = list(product(*(range(size) for size in sizes[:length])))
    return [Task(folder=folder, split=s, prefix=p) for s in SPLITS for p in prefixes]


def part(out: Path, task: Task) -> Path:
    """Where the losses of a task are kept, so that an interrupted run goes on."""
    prefix = "-".join(map(str, task.prefix))
    return out / "parts" / f"{task.folder.name}.{task.split}.{prefix}.npy"


def work(
    device: str, out: Path, queue: multiprocessing.Queue, results: multiprocessing.Queue
) -> None:
    """Takes tasks until there is none; writes what each measured."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    trees: dict[Path, Tree] = {}
    try:
        while (task := queue.get()) is not None:
            started = time.monotonic()
            if task.folder not in trees:
                trees[task.folder] = Tree(task.folder, device)
            losses = trees[task.folder].losses(task)
            scratch = part(out, task).with_suffix(".tmp.npy")
            np.save(scratch, losses)
            scratch.rename(part(out, task))
            results.put((task, sorted(trees[task.folder].slow), time.monotonic() - started))
    except BaseException:
        results.put(traceback.format_exc())
        raise


def reduce(losses: np.ndarray, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and standard error of (assignments, samples), and the samples of the kept ones."""
    losses = np.where(np.isfinite(losses), losses, np.inf).astype(np.float64)
    with np.errstate(invalid="ignore"):
        stderr = losses.std(axis=1, ddof=1) / math.sqrt(losses.shape[1])
    return {
        "loss": losses.mean(axis=1).astype(np.float32),
        "stderr": stderr.astype(np.float32),
        "samples": losses[kept].astype(np.float32),
    }


def save(folder: Path, depth: int, out: Path) -> None:
    """Everything measured of a space; splits that are incomplete are left out."""
    content: dict[str, np.ndarray] = {}
    for split in SPLITS:
        parts = [part(out, task) for task in tasks(folder, depth) if task.split == split]
        if all(path.exists() for path in parts):
            losses = np.concatenate([np.load(path) for path in parts])
            kept = np.random.default_rng(0).permutation(len(losses))[:KEPT_SAMPLES]
            content |= {f"{split}.{k}": v for k, v in reduce(losses, kept).items()}
            content["kept"] = kept.astype(np.int32)
    if content:
        np.savez_compressed(out / f"{folder.name}.npz", **content)  # type: ignore[arg-type]


def main() -> None:
    """Runs all tasks of all folders and writes one file a space as soon as it is complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prefix", type=int, default=3, help="variables that a task fixes")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS))
    arguments = parser.parse_args()
    (arguments.out / "parts").mkdir(parents=True, exist_ok=True)
    todo = [task for f in arguments.folders for task in tasks(f, arguments.prefix)]
    todo = sorted(todo, key=lambda task: SPLITS.index(task.split))
    todo = [
        task
        for task in todo
        if task.split in arguments.splits and not part(arguments.out, task).exists()
    ]
    context = multiprocessing.get_context("spawn")
    queue, results = context.Queue(), context.Queue()
    for task in (*todo, *[None] * arguments.workers):
        queue.put(task)
    workers = [
        context.Process(
            target=work, args=(arguments.device, arguments.out, queue, results), daemon=True
        )
        for _ in range(arguments.workers)
    ]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for done in range(1, len(todo) + 1):
        answer = results.get()
        if isinstance(answer, str):
            print(answer, flush=True)
            # Not `sys.exit`: that would wait for tasks that nobody takes any more.
            os._exit(1)
        task, slow, seconds = answer
        if done % 8 == 1:
            print(f"{time.monotonic() - started:.0f} s: {done}/{len(todo)}, {task.folder.name} "
                  f"{task.split} {seconds:.1f} s, slow {slow}", flush=True)  # fmt: skip
    for folder in arguments.folders:
        save(folder, arguments.prefix, arguments.out)


if __name__ == "__main__":
    main()
