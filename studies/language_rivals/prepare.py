"""The network in another order and its windows of text, for every other script of the study.

`python -m studies.language_rivals.prepare WORK`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from studies.language_rivals import network, text


def main() -> None:
    """Writes what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    network.write(work)
    text.write(work)


if __name__ == "__main__":
    main()
