"""Every command of the study in turn, each a process of its own, whose CPU seconds it notes.

`python -m studies.language_rivals.run WORK`, WORK an empty folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

COMMANDS = (
    ("prepare",), ("auto_scheme",), ("dse_scores",), ("allocations",), ("llamacpp",), ("blocks",),
    ("blocks", "Q4_K_M", "--gptq"),
)  # fmt: skip


def main() -> None:
    """Stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    work = parser.parse_args().work
    for name, *options in COMMANDS:
        command = [sys.executable, "-m", f"studies.language_rivals.{name}", work, *options]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
