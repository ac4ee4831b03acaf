"""Hostile inputs by the thousand: how each ends, and the first example of every fault.

Usage: python -m studies.hostile_inputs.run [--cases 20000] [--results FILE.csv]

Resumable: a case is a number, cases that the file has are not run again.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections import Counter
from pathlib import Path

from tests.hostile.answer import Answer, import_all
from tests.hostile.cases import CASES, answered, prepare

RESULTS = Path(__file__).parent / "results" / "cases.csv"
COLUMNS = ("case", "kind", "command", "code", "fault", "cpu_s", "memory_mb", "where")


def kind_of(case: int) -> str:
    """The kind of a case's input."""
    kinds = [kind for kind, (_, share) in CASES.items() for _ in range(share)]
    return kinds[case % len(kinds)]


def where(found: Answer) -> str:
    """The deepest own line of a traceback."""
    lines = [line.strip() for line in found.text.splitlines()]
    own = [
        line
        for line in lines
        if line.startswith("File") and ("/dse/" in line or "/hwmodels/" in line)
    ]
    return own[-1].rsplit("/", 2)[-1] if found.fault and own else ""


def run(count: int, results: Path) -> Counter[str]:
    """Runs what is missing; counts by code or fault."""
    done = {int(row["case"]): row for row in _rows(results)}
    import_all()
    with tempfile.TemporaryDirectory() as name, results.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if not done:
            writer.writeheader()
        folder = Path(name)
        prepare(folder)
        for case in range(count):
            if case not in done:
                writer.writerow(_row(case, folder))
                stream.flush()
    return Counter(row["fault"] or f"exit {row['code']}" for row in _rows(results))


def _row(case: int, folder: Path) -> dict[str, object]:
    kind = kind_of(case)
    arguments, found = answered(kind, random.Random(case), folder)
    return {
        "case": case, "kind": kind, "command": arguments[0], "code": found.code,
        "fault": found.fault, "cpu_s": round(found.cpu_s, 2),
        "memory_mb": found.memory_bytes >> 20, "where": where(found),
    }  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for end, count in run(given.cases, given.results).most_common():
        print(f"{count:6d}  {end}")


if __name__ == "__main__":
    main()
