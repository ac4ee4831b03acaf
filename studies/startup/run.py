"""What a command costs before it answers: seconds of processor and clock, process by process.

`python -m studies.startup.run` writes `results/startup.csv`; `--search` takes the search along.
Every repetition is a new interpreter; bytecode is there, as it is after an installation.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAM = "from dse.cli import main; main()"
FIRST_TRIAL = "1/"
"""How the line begins that a search prints when its first trial is measured."""

LLAMA = ("--dim", "batch=4", "--dim", "sequence=64", "--dim", "past=128")
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "check": ("check", "spaces/fp4.yaml"),
    "predict": (
        "predict", "zoo:llama-3-8b", "--device", "b200-sxm", "--runtime", "vllm",
        "--format", "w8a8_fp8", *LLAMA,
    ),
}  # fmt: skip
SEARCH = ("search", "spaces/fp4.yaml", "--seed", "0", "--out")
COLUMNS = ("command", "repeats", "cpu_min_s", "cpu_median_s", "wall_min_s", "wall_median_s",
           "first_trial_s", "load", "processor")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One process."""

    cpu_s: float
    """Of it and what it started, system calls included."""
    wall_s: float
    first_trial_s: float | None = None
    """From its start until it says that a first trial is measured."""


def timed(arguments: Sequence[str]) -> Timing:
    """A command line in an interpreter of its own."""
    before, start = _cpu_s(), time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    first: float | None = None
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if first is None and line.strip().startswith(FIRST_TRIAL):
            first = time.perf_counter() - start
    if process.wait():
        raise SystemExit(f"dse {' '.join(arguments)}: {''.join(said)}")
    return Timing(cpu_s=_cpu_s() - before, wall_s=time.perf_counter() - start, first_trial_s=first)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows(repeats: int, *, search: bool) -> Iterator[dict[str, str]]:
    """The table; the search counts once, since it is long."""
    for name, arguments in COMMANDS.items():
        timed(arguments)  # writes bytecode, reads the files once
        yield _row(name, [timed(arguments) for _ in range(repeats)])
    if search:
        with TemporaryDirectory() as folder:
            yield _row("search", [timed((*SEARCH, f"{folder}/run"))])


def _row(name: str, timings: Sequence[Timing]) -> dict[str, str]:
    cpu = [one.cpu_s for one in timings]
    wall = [one.wall_s for one in timings]
    values = (min(cpu), statistics.median(cpu), min(wall), statistics.median(wall),
              timings[0].first_trial_s)  # fmt: skip
    numbers = (f"{value:.2f}" if value is not None else "" for value in values)
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()}"
    return dict(zip(COLUMNS, (name, str(len(timings)), *numbers, load, _processor()), strict=True))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--search", action="store_true", help="time the search too")
    asked = parser.parse_args()
    path = HERE / "results" / "startup.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows(asked.repeats, search=asked.search):
            writer.writerow(row)
            stream.flush()
            print(row)


if __name__ == "__main__":
    main()
