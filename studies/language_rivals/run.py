"""Every command of the study in turn, each a process of its own, whose CPU seconds it notes.

`python -m studies.language_rivals.run WORK`, WORK an empty folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

COMMANDS = (
    "prepare WORK", "questions WORK", "auto_scheme WORK", "auto_quantize WORK", "dse_scores WORK",
    "allocations WORK", "mix WORK", "llamacpp WORK", "llamacpp WORK --types-of-dse",
    "blocks WORK", "blocks WORK --gptq", "inside WORK", "paired", "answers WORK",
)  # fmt: skip


def main() -> None:
    """Stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    work = parser.parse_args().work
    for command in COMMANDS:
        name, *options = command.split()
        given = [work if option == "WORK" else option for option in options]
        called = [sys.executable, "-m", f"studies.language_rivals.{name}", *given]
        subprocess.run(called, check=True)


if __name__ == "__main__":
    main()
