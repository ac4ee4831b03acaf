"""What a process has occupied at most."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Bytes that this program has occupied at most.

    Of the program, and not of `resource.getrusage`: there, what the process was before it started
    this program counts, too, which is the size of whoever started it.
    """
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )  # fmt: skip
    return int(line.split()[1]) * 1024
