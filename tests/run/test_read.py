from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.errors import RunError
from dse.run.read import read_run


def test_reads_every_trial_choice_and_cost(folder: Path) -> None:
    run = read_run(folder)
    lines = {
        name: len((folder / f"{name}.csv").read_text().splitlines()) - 1
        for name in ("trials", "front", "choices", "costs", "sensitivity")
    }
    assert lines == {
        "trials": len(run.points),
        "front": len(run.front),
        "choices": len(run.choices),
        "costs": len(run.costs),
        "sensitivity": len(run.sensitivity),
    }


def test_an_empty_cell_is_not_a_number(folder: Path) -> None:
    run = read_run(folder)
    searched_only = [point for point in run.points if not point.on_report]
    assert searched_only
    assert all(point.loss == point.columns["quality_loss"] for point in searched_only)


def test_the_front_is_sorted_by_its_first_cost(folder: Path) -> None:
    costs = [point.columns["b200.latency_s"] for point in read_run(folder).front]
    assert costs == sorted(costs)


@pytest.mark.parametrize("name", ["costs.csv", "sensitivity.csv", "recommended.json"])
def test_a_run_without_optional_files_is_still_read(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert read_run(folder).front


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing: no such folder"):
        read_run(tmp_path / "nothing")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder: manifest\.json is missing"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", ["trials.csv", "front.csv", "choices.csv"])
def test_a_missing_table_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing"):
        read_run(folder)


def test_a_torn_manifest_is_named(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match=r"manifest\.json: file: Invalid JSON"):
        read_run(folder)


def test_all_wrong_fields_are_listed_with_their_paths(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["variables"][3]["choices"] = 7
    content["seed"] = "often"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_run(folder)
    assert "variables.3.choices" in str(caught.value)
    assert "seed" in str(caught.value)


def test_another_version_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(RunError, match="format: expected 1, got 9"):
        read_run(folder)


def test_a_row_that_is_cut_short_is_named_by_its_line(folder: Path) -> None:
    path = folder / "trials.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:20]]))
    with pytest.raises(RunError, match=r"trials\.csv:5"):
        read_run(folder)


def test_a_cost_that_is_no_number_is_named(folder: Path) -> None:
    path = folder / "costs.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"latency_s": "soon"}
    path.write_text("\n".join([header, ",".join(cells.values()), *rest]))
    with pytest.raises(RunError, match=r"costs\.csv: 0\.latency_s"):
        read_run(folder)


def test_a_choice_that_the_manifest_does_not_offer_is_named(folder: Path) -> None:
    path = folder / "choices.csv"
    header, first, *rest = path.read_text().splitlines()
    trial, chosen, *others = first.split(",")
    path.write_text("\n".join([header, ",".join([trial, "fp3", *others]), *rest]))
    assert chosen != "fp3"
    with pytest.raises(RunError, match=rf"choices\.csv: trial {trial}: .* takes 'fp3'.*not offer"):
        read_run(folder)


def test_a_table_that_is_no_text_is_named(folder: Path) -> None:
    path = folder / "choices.csv"
    path.write_bytes(b"\x80" + path.read_bytes())
    with pytest.raises(RunError, match=r"choices\.csv: expected CSV in UTF-8"):
        read_run(folder)


def test_a_run_without_front_says_how_to_go_on(folder: Path) -> None:
    path = folder / "front.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    with pytest.raises(RunError, match="no assignment that was measured keeps to"):
        read_run(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    with pytest.raises(RunError, match=f"dse search --out {folder} --resume"):
        read_run(folder)
