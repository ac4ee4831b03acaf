"""Command lines answered within limits by forked children, so that nothing is imported twice.

A child answers many lines, one after another, until it dies of one: a fork copies the page tables
of everything that is imported, which takes as long as many an answer.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

CPU_S = 10
"""Seconds of CPU that an answer may take."""
MEMORY_BYTES = 2 * 2**30
"""What an answer may occupy beside what its process has."""
WALL_S = 600
"""When a child that waits for something that never comes is given up."""
CHILD_ANSWERS = 50
"""How many lines a child answers, so that what one of them left behind goes."""
IMPORTED = (
    "dse.cli.app", "dse.predict", "dse.space.check", "dse.space.init", "dse.explore.run",
    "dse.evaluate.cost_tables", "dse.evaluate.setup", "dse.report", "dse.explore.tell",
    "dse.explore.solution", "dse.explore.reprice", "dse.export.deliver", "dse.cli.screen",
    "dse.imports.folder", "dse.numerics.on_cpu", "dse.evaluate.tasks",
    "transformers.models.llama.modeling_llama",
    "hwmodels.fit", "onnx.reference", "torch", "optuna", "pandas", "scipy.optimize", "plotly",
)  # fmt: skip

GOOD = (0, 2)
"""Exit codes of an answer: done, or the input is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command line ended."""

    code: int
    """Exit code; the negative number of a signal."""
    text: str
    """What it wrote, stdout before stderr; a traceback of what the boundary did not know."""
    cpu_s: float = 0.0
    memory_bytes: int = 0
    """What its process occupied at most up to then, imports included."""

    @property
    def fault(self) -> str:
        """Why it is no answer; empty where it is one."""
        if self.code == -signal.SIGXCPU:
            return f"hang: over {CPU_S} s of CPU"
        if self.code < 0:
            return f"died of {signal.Signals(-self.code).name}"
        if self.code not in GOOD:
            return f"exit {self.code}"
        if "Traceback" in self.text:
            return "traceback"
        if self.code and not self.text.strip():
            return "no message"
        return ""


def import_all() -> None:
    """Imports what commands need, so that children share it."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()


class Answerer:
    """A child that answers command lines; another takes its place when it dies or has had many.

    Args:
        cache: what children import of models is kept there, not with the user's; kernels, which
            `import_all` has found a place for, stay with the user's.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._left = 0
        self._pid = 0

    def __call__(self, arguments: Sequence[str], folder: Path, *, cpu_s: int = CPU_S) -> Answer:
        """The end of a command line that runs in a folder, within the limits."""
        if not self._left:
            self.renew()
        self._left -= 1
        self._ask(json.dumps([list(arguments), str(folder), cpu_s]))
        ready, _, _ = select.select([self._answers], [], [], WALL_S)
        line = self._answers.readline() if ready else ""
        if line:
            code, used_s, memory_bytes = json.loads(line)
            return _read(folder, code, used_s, memory_bytes)
        return _read(folder, self._ended())

    def renew(self) -> None:
        """Goes on with a new child, which knows nothing of earlier lines."""
        self.close()
        sys.stdout.flush()
        sys.stderr.flush()
        (asked, ask), (told, tell) = os.pipe(), os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(ask)
            os.close(told)
            os.environ["XDG_CACHE_HOME"] = str(self._cache)
            _child(os.fdopen(asked), os.fdopen(tell, "w"))
        os.close(asked)
        os.close(tell)
        self._questions, self._answers = ask, os.fdopen(told)
        self._left = CHILD_ANSWERS

    def close(self) -> None:
        """Ends the child."""
        if self._pid:
            self._ended()

    def _ask(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile, which the answer tells
            os.write(self._questions, f"{line}\n".encode())

    def _ended(self) -> int:
        """How the child ended, after it was made to where it has not."""
        os.kill(self._pid, signal.SIGKILL)  # one that died already keeps its own end
        _, status = os.waitpid(self._pid, 0)
        self._pid = self._left = 0
        self._answers.close()
        os.close(self._questions)
        return os.waitstatus_to_exitcode(status)


def _streams(folder: Path) -> tuple[Path, Path]:
    return folder / ".stdout", folder / ".stderr"


def _read(folder: Path, code: int, cpu_s: float = 0.0, memory_bytes: int = 0) -> Answer:
    paths = _streams(folder)
    text = "".join(path.read_text(errors="replace") for path in paths if path.exists())
    for path in paths:
        path.unlink(missing_ok=True)
    return Answer(code=code, text=text, cpu_s=cpu_s, memory_bytes=memory_bytes)


def _child(questions: TextIO, answers: TextIO) -> None:
    """Answers until there are no more questions."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _note_tracebacks()
        for line in questions:
            arguments, folder, cpu_s = json.loads(line)
            _limit(cpu_s)
            before = _cpu_s()
            code = _answered(arguments, Path(folder))
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps([code, _cpu_s() - before, most]), file=answers, flush=True)
    finally:
        os._exit(70)


def _answered(arguments: Sequence[str], folder: Path) -> int:
    for number, path in enumerate(_streams(folder), start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    os.chdir(folder)
    code = _code(arguments)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return code


def _note_tracebacks() -> None:
    """Has the boundary show where an error came from that it did not expect."""
    from dse.cli import app  # noqa: PLC0415 (imported in the parent)

    described = app.described

    def noted(error: Exception) -> tuple[str, int]:
        message, code = described(error)
        if code not in GOOD:
            traceback.print_exception(error, file=sys.stderr)
        return message, code

    app.described = noted


def _code(arguments: Sequence[str]) -> int:
    from dse.cli import app  # noqa: PLC0415

    try:
        return app.run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _limit(cpu_s: int) -> None:
    """Sets the soft limits anew, from what is occupied and used now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(_cpu_s()) + cpu_s, resource.RLIM_INFINITY))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
