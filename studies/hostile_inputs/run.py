"""Hostile inputs by the thousand: how each ends.

Usage: python -m studies.hostile_inputs.run [--cases 20000] [--rows FILE.csv]

Resumable: a case is a number; cases that the file has are not run again unless they were faults.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tests.hostile.answer import Answer, Answerer, import_all
from tests.hostile.cases import answered, kind_of, prepare

ROWS = Path("runs/hostile_inputs.csv")
TABLE = Path(__file__).parent / "results" / "ends.csv"
COLUMNS = ("case", "kind", "command", "code", "fault", "cpu_s", "memory_mb", "where")


def where(found: Answer) -> str:
    """The deepest own line of a traceback."""
    lines = [line.strip() for line in found.text.splitlines()]
    own = [
        line
        for line in lines
        if line.startswith("File") and ("/dse/" in line or "/hwmodels/" in line)
    ]
    return own[-1].rsplit("/", 2)[-1] if found.fault and own else ""


def run(count: int, path: Path) -> pd.DataFrame:
    """Runs what is missing; every case's end."""
    done = {row["case"] for row in _rows(path) if not row["fault"]}
    missing = [case for case in range(count) if str(case) not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with tempfile.TemporaryDirectory() as name, path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        import_all()
        answer = Answerer(Path(name) / "cache")
        prepare(Path(name), answer)
        for case in missing:
            writer.writerow(_row(case, Path(name), answer))
            stream.flush()
        answer.close()
    return pd.read_csv(path, keep_default_na=False).drop_duplicates("case", keep="last")


def _row(case: int, folder: Path, answer: Answerer) -> dict[str, object]:
    arguments, found = answered(case, folder, answer)
    if found.fault:
        print(
            f"case {case}: dse {' '.join(arguments)}: {found.fault}", found.text[-2000:], sep="\n"
        )
    return {
        "case": case, "kind": kind_of(case), "command": arguments[0], "code": found.code,
        "fault": found.fault, "cpu_s": round(found.cpu_s, 2),
        "memory_mb": found.memory_bytes >> 20, "where": where(found),
    }  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def summary(ends: pd.DataFrame) -> pd.DataFrame:
    """How the cases of each kind ended, and all of them."""
    return pd.DataFrame([_counted(kind, rows) for kind, rows in ends.groupby("kind", sort=False)]
                        + [_counted("all", ends)])  # fmt: skip


def _counted(kind: object, rows: pd.DataFrame) -> dict[str, object]:
    hung = rows.fault.str.startswith("hang")
    return {
        "kind": kind,
        "cases": len(rows),
        "done": int((rows.code == 0).sum()),
        "refused": int((rows.code == 2).sum()),
        "hangs": int(hung.sum()),
        "exceptions_or_memory": int(((rows.fault != "") & ~hung).sum()),
        "most_cpu_s": rows.cpu_s.max(),
        "most_memory_mb": rows.memory_mb.max(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--rows", type=Path, default=ROWS)
    given = parser.parse_args(arguments)
    table = summary(run(given.cases, given.rows))
    TABLE.parent.mkdir(exist_ok=True)
    table.to_csv(TABLE, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
