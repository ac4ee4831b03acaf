"""The README's lines are those of the results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.accumulators import run


def test_every_line_of_the_readme_is_in_the_results():
    text = (Path(run.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert table == [*run.lines("fashion-resnet"), *run.lines("byte-gpt")]


def test_eighteen_bits_are_as_good_as_thirty_two_and_sixteen_are_not():
    for name in ("fashion-resnet", "byte-gpt"):
        table = pd.read_csv(run.RESULTS / f"{name}.csv").query("format == 'int8'")
        loss = table.set_index("accumulator").loss
        for enough in ("int20", "int20:saturate", "int18", "int18:saturate"):
            assert abs(loss[enough] / loss["int32"] - 1) < 0.02
        assert loss["int17"] > 10 * loss["int32"]
        assert loss["int16"] > 10 * loss["int16:saturate"] > 20 * loss["int32"]


def test_circuits_of_the_table_are_those_of_today():
    for name in ("fashion-resnet", "byte-gpt"):
        for row in pd.read_csv(run.RESULTS / f"{name}.csv").itertuples():
            for column, value in run.circuits(str(row.format), str(row.accumulator)).items():
                assert abs(getattr(row, column) / value - 1) < 1e-3
