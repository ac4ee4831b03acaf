"""The README's lines are those of the results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.accumulators import run


def test_every_line_of_the_readme_is_in_the_results():
    text = (Path(run.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert table == [*run.lines("fashion-resnet"), *run.lines("byte-gpt")]


def test_twenty_bits_are_as_good_as_thirty_two_and_sixteen_are_not():
    for name in ("fashion-resnet", "byte-gpt"):
        table = pd.read_csv(run.RESULTS / f"{name}.csv").query("format == 'int8'")
        loss = table.set_index("accumulator").loss
        assert loss["int20:saturate"] == loss["int32"]
        assert loss["int16"] > 10 * loss["int16:saturate"] > 20 * loss["int32"]
