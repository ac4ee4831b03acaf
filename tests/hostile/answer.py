"""Command lines answered in a child with limits: forked, so that nothing is imported twice."""

from __future__ import annotations

import gc
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_S = 10
"""Seconds of CPU that an answer may take."""
MEMORY_BYTES = 2 * 2**30
"""What an answer may occupy beside what is imported."""
WALL_S = 120
"""When a child that waits for something that never comes is given up."""
IMPORTED = (
    "dse.cli.app", "dse.predict", "dse.space.check", "dse.space.init", "dse.explore.run",
    "dse.evaluate.cost_tables", "dse.evaluate.setup", "dse.report", "dse.explore.tell",
    "dse.explore.solution", "dse.explore.reprice", "dse.export.deliver", "dse.cli.screen",
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
    cpu_s: float
    memory_bytes: int
    """Most memory at once, imports included."""

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


def answer(arguments: Sequence[str], folder: Path) -> Answer:
    """The end of a command line that runs in a folder, within the limits."""
    streams = folder / ".stdout", folder / ".stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _child(arguments, folder, streams)
    status, usage = _awaited(pid)
    text = "".join(path.read_text(errors="replace") for path in streams if path.exists())
    for path in streams:
        path.unlink(missing_ok=True)
    return Answer(
        code=os.waitstatus_to_exitcode(status),
        text=text,
        cpu_s=usage.ru_utime + usage.ru_stime,
        memory_bytes=usage.ru_maxrss * 1024,
    )


def _awaited(pid: int) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + WALL_S
    while time.monotonic() < end:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return status, usage


def _child(arguments: Sequence[str], folder: Path, streams: tuple[Path, Path]) -> None:
    code = 70
    try:
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder)
        _limit()
        code = _code(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code(arguments: Sequence[str]) -> int:
    """Exit code; with the traceback where the boundary did not expect the error."""
    from dse.cli import app  # noqa: PLC0415 (imported in the parent)

    described = app._described

    def noted(error: Exception) -> tuple[str, int]:
        message, code = described(error)
        if code not in GOOD:
            traceback.print_exception(error, file=sys.stderr)
        return message, code

    app._described = noted
    try:
        return app.run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
