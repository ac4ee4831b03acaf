"""Files of systems: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import StudyError
from dse.systems.load import load_system, read_system
from dse.systems.measures.registry import measure_of
from dse.systems.run import result, results
from dse.systems.schema import Claim, Expectation, Uses
from dse.systems.uses import loaded_uses

HEAD = """
id: S99
name: a system
title: its title
source: a test
adds: [format]
uses: {formats: [e4m3]}
"""


def written(folder: Path, claims: str) -> Path:
    path = folder / "S99.yaml"
    path.write_text(f"{HEAD}claims:\n{claims}", encoding="utf-8")
    return path


def test_a_file_is_a_system(tmp_path: Path) -> None:
    found = read_system(written(tmp_path, """
  - says: E4M3 ends at 448.
    evidence: published
    measure: format_facts
    options: {formats: [e4m3]}
    expect: [{row: e4m3 largest, value: 448, within: 0}]
"""))  # fmt: skip
    assert [one.verdict for one in results(found)] == ["holds"]


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ("  - {says: x, evidence: probed}", "needs measure and expect"),
        ("  - {says: x, evidence: guessed, needs: a GPU, why: y}", "evidence: expected"),
        ("  - {says: x, evidence: probed, needs: a GPU}", "says why, and names no measure"),
        ("  - {says: x, evidence: probed, neds: seconds}", "did you mean 'needs'"),
        (
            "  - {says: x, evidence: probed, measure: m, expect: [{row: a, value: 1}]}",
            "value comes with within or relative",
        ),
        (
            "  - {says: x, evidence: probed, measure: m, expect: [{row: a}]}",
            "expected row with value, at_least or at_most, or rising",
        ),
        (
            "  - {says: x, evidence: probed, measure: m, expect: [{rising: [a]}]}",
            "rising stands alone, with two names or more",
        ),
    ],
)
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, claims: str, words: str) -> None:
    with pytest.raises(StudyError, match=words) as error:
        read_system(written(tmp_path, claims))
    assert str(tmp_path / "S99.yaml") in str(error.value)
    assert "claims.0" in str(error.value)


@pytest.mark.parametrize("name", ["S09", "s9", "9", "s09"])
def test_an_id_is_found_however_it_is_written(name: str) -> None:
    assert load_system(name).id == "S09"


@pytest.mark.parametrize("name", ["S29", "S0", "coat", "", "²"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(StudyError, match="unknown system"):
        load_system(name)


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        (Uses(methods=("coal",)), "uses.methods: unknown method 'coal'; did you mean 'coat'"),
        (Uses(formats=("e4m4x",)), "uses.formats: unknown format"),
        (Uses(functions=("dse.numerics:nothing",)), "uses.functions: dse.numerics:nothing"),
    ],
)
def test_what_is_not_of_the_product_is_named(uses: Uses, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        list(loaded_uses(uses, "S99.yaml"))


def claim(**content: object) -> Claim:
    expect = (Expectation(row="a", at_least=0.0),)
    return Claim(says="x", evidence="ours", expect=expect, **content)  # type: ignore[arg-type]


def test_options_that_do_not_fit_are_named() -> None:
    with pytest.raises(StudyError, match="did you mean 'format_facts'"):
        measure_of(claim(measure="format_fact"))
    with pytest.raises(StudyError, match=r"options: formats: missing.*\n.*did you mean 'formats'"):
        measure_of(claim(measure="format_facts", options={"fromats": ["e4m3"]}))


def test_a_number_that_a_measure_lacks_is_named() -> None:
    with pytest.raises(StudyError, match="no number 'a'; there are e4m3 bits"):
        result(claim(measure="format_facts", options={"formats": ["e4m3"]}))
