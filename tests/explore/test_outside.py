"""A finished run goes on outside: other targets, other limits, measurements of users."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dse.errors import InfeasibleError, RunError
from dse.explore import Overrides, run_search
from dse.explore.propose import propose
from dse.explore.reprice import reprice
from dse.explore.restore import restored_to_read
from dse.explore.solution import surrogate_of
from dse.explore.solve.surrogate import Surrogate
from dse.explore.tell import tell
from dse.graph.assignment_json import from_json
from dse.model import open_model
from dse.report.console import print_front
from dse.report.html import write_report
from hwmodels.formats import catalog

SMOKE = Path("spaces/smoke.yaml")
TWO = ("h100-sxm:free", "b200-sxm:free")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two"
    run_search(SMOKE, overrides=Overrides(targets=TWO), out=folder)
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


def _trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv").set_index("digest")


def _results(folder: Path, **columns: object) -> Path:
    path = folder / "results.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_every_target_has_a_front_and_the_robust_one_stands_beside(original: Path) -> None:
    fronts = pd.read_csv(original / "fronts.csv")
    assert list(dict.fromkeys(fronts.front)) == ["h100-sxm", "b200-sxm", "robust"]
    trials = pd.read_csv(original / "trials.csv").dropna(subset="report_quality_loss")
    for target in ("h100-sxm", "b200-sxm"):
        values = trials[["report_quality_loss", f"{target}.latency_s"]].to_numpy()
        best = [not ((values <= v).all(1) & (values < v).any(1)).any() for v in values]
        expected = {tuple(row) for row in values[best]}
        own = fronts[fronts.front == target]
        found = own[["report_quality_loss", f"{target}.latency_s"]].to_numpy()
        np.testing.assert_allclose(sorted(map(tuple, found)), sorted(expected))
        assert (own[f"{target}.latency_s.excess"].abs() < 1e-12).all()


def test_the_robust_front_has_the_least_worst_ratio_at_its_loss(original: Path) -> None:
    trials = pd.read_csv(original / "trials.csv").dropna(subset="report_quality_loss")
    base = trials[trials.name == "bf16"].iloc[0]
    columns = [f"{target.split(':')[0]}.latency_s" for target in TWO]
    worst = (trials[columns] / base[columns].astype(float)).max(axis=1)
    fronts = pd.read_csv(original / "fronts.csv")
    robust = fronts[fronts.front == "robust"]
    for _, row in robust.iterrows():
        no_worse = trials.report_quality_loss <= row.report_quality_loss
        assert row.worst_ratio == pytest.approx(worst[no_worse].min())
    assert json.loads((original / "robust.json").read_text())["trial"] in robust.trial.tolist()


def test_console_and_page_name_the_robust_assignment(original: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_front(original, console)
    page = write_report(original).read_text()
    for text in (console.file.getvalue(), page):  # type: ignore[attr-defined]
        assert "Robust over h100-sxm, b200-sxm: " in text
    assert "On every target" in page


def test_other_targets_reuse_every_quality_at_no_evaluation(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    reprice(run, overrides=Overrides(targets=("mi355x:free",)), out=out)
    before, after = _trials(run), _trials(out)
    assert set(after.index) == set(before.index)
    pd.testing.assert_series_equal(after.quality_loss, before.quality_loss[after.index])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["objectives"] == ["report_quality_loss", "latency_s"]
    assert manifest["forward_equivalents"]["total"] == 0
    again = run_search(
        out / "space.yaml", overrides=Overrides(targets=("mi355x:free",)),
        out=tmp_path / "fresh",
    )  # fmt: skip
    fresh = _trials(again.folder)
    uniform = fresh[fresh.source == "uniform"].index
    np.testing.assert_allclose(after.latency_s[uniform], fresh.latency_s[uniform])


def test_a_reused_run_can_be_continued(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    reprice(run, overrides=Overrides(targets=("mi355x:free",)), out=out)
    run_search(out / "space.yaml", out=out, resume=True)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["unreported"] == 0
    assert len(_trials(out)) >= len(_trials(run))


def test_a_target_file_may_list_targets(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text("targets: [b200-sxm:free, {name: amd, device: mi355x, runtime: free}]\n")
    reprice(run, overrides=Overrides(targets=(str(path),)), out=tmp_path / "new")
    columns = _trials(tmp_path / "new").columns
    assert {"b200-sxm.latency_s", "amd.latency_s"} <= set(columns)


def test_a_limit_on_quality_that_nothing_holds_names_the_nearest(
    run: Path, tmp_path: Path
) -> None:
    limits = Overrides(constraints=("quality_loss<=1e-9",))
    with pytest.raises(InfeasibleError, match=r"nearest, trial \d+ \(bf16\).*relax quality_loss"):
        reprice(run, overrides=limits, out=tmp_path / "new")


def test_proposals_are_new_assignments_of_the_model(run: Path, tmp_path: Path) -> None:
    found = propose(run, 3, tmp_path / "next")
    index = pd.read_csv(tmp_path / "next" / "proposals.csv")
    assert index.digest.tolist() == [one.digest for one in found]
    assert len({*index.digest} - {*_trials(run).index}) == 3
    graph = open_model("zoo:fashion-resnet").graph
    for one in found:
        read = from_json(one.file.read_text(), graph, lambda spec: catalog.quantizer(str(spec)))
        assert read.digest == one.digest
    more = propose(run, 2, tmp_path / "more")
    assert not {one.digest for one in more} & {one.digest for one in found}


def test_whatever_is_damaged_in_a_study_is_named(run: Path, tmp_path: Path) -> None:
    first, *_ = propose(run, 2, tmp_path / "next")
    tell(run, _results(tmp_path, digest=[first.digest], quality_loss=[1e-7]))
    journal = run / "study.log"
    whole = journal.read_text()
    for name, place in (
        *((name, "trial 0 of the study: ") for name in ("macs", "source", "digest", "quality")),
        ("losses", "study: "),
        ("choices", "study: proposed.|study: told."),
    ):
        journal.write_text(whole.replace(f'"{name}"', f'"no {name}"'))
        with pytest.raises(RunError, match=f"^({place}).*damaged"):
            propose(run, 1, tmp_path / "more")


def test_told_qualities_become_trials_of_the_user(run: Path, tmp_path: Path) -> None:
    first, *_ = propose(run, 2, tmp_path / "next")
    results = _results(tmp_path, digest=[first.digest], quality_loss=[1e-7])
    lesson = tell(run, results)
    row = _trials(run).loc[first.digest]
    assert (row.source, row.quality_loss, row.report_quality_loss) == ("user", 1e-7, 1e-7)
    assert lesson.new == 1
    assert first.digest in {record.digest for record in lesson.front}
    assert first.digest in pd.read_csv(run / "front.csv").digest.tolist()


def test_told_latencies_correct_those_that_were_not_measured(run: Path, tmp_path: Path) -> None:
    before = _trials(run)
    told = before.index[:6]
    column = "h100-sxm.latency_s"
    results = _results(tmp_path, digest=told, **{column: before[column][told] * 1.5})
    lesson = tell(run, results)
    after = _trials(run)
    assert lesson.ratios[column] == pytest.approx(1.5)
    np.testing.assert_allclose(after[column][told], before[column][told] * 1.5)
    rest = before.index.difference(told)
    np.testing.assert_allclose(after[column][rest], before[column][rest] * 1.5, rtol=0.05)
    other = "b200-sxm.latency_s"
    np.testing.assert_allclose(after[other][rest], before[other][rest])
    assert (after.source[before.index[before.source == "uniform"]] == "uniform").all()


def test_wrong_results_are_refused_with_every_error_and_change_nothing(
    run: Path, tmp_path: Path
) -> None:
    known = _trials(run).index[0]
    before = (run / "study.log").read_bytes()
    results = tmp_path / "results.csv"
    results.write_text(
        f"digest,quality_loss\n{known[:-1]}x,0.1\n{known},nan\n{known},0.1\n{known},0.2\n"
        f"{_trials(run).index[1]},\n"
    )
    with pytest.raises(RunError) as raised:
        tell(run, results)
    lines = str(raised.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "5", "6"]
    assert "neither measured nor proposed" in lines[0]
    assert "finite positive number" in lines[1]
    assert "there twice" in lines[2]
    assert (run / "study.log").read_bytes() == before


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("point,quality_loss", "'digest' or 'trial'"),
        ("digest,latency_s", "of which target\\? e.g. 'h100-sxm.latency_s'"),
        ("digest,quality_los", "did you mean 'quality_loss'"),
        ("digest,file", "no column with a measurement"),
    ],
)
def test_wrong_columns_are_refused(run: Path, tmp_path: Path, header: str, says: str) -> None:
    results = tmp_path / "results.csv"
    results.write_text(f"{header}\nx,1\n")
    with pytest.raises(RunError, match=says):
        tell(run, results)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        propose(tmp_path, 1, tmp_path / "next")


def test_scores_of_a_run_are_those_that_its_measurements_corrected(run: Path) -> None:
    with restored_to_read(run) as past:
        points = np.array([record.point for record in past.records])
        measured = np.array([record.search.loss for record in past.records])

        def missed(surrogate: Surrogate) -> float:
            return float(np.abs(surrogate.predict(points) - measured).mean())

        assert missed(surrogate_of(run, past.design)) < missed(past.surrogate)


def test_the_front_marks_what_was_measured(run: Path, tmp_path: Path) -> None:
    first, *_ = propose(run, 1, tmp_path / "next")
    values = {"quality_loss": [1e-7], "h100-sxm.latency_s": [1e-6]}
    tell(run, _results(tmp_path, digest=[first.digest], **values))
    console = Console(file=io.StringIO(), width=240)
    print_front(run, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    marked = [line for line in text.splitlines() if "measured" in line and "#" in line]
    assert [line.count("measured") for line in marked] == [2], text
    assert f"#{_trials(run).trial[first.digest]}" in marked[0]


def test_one_measured_latency_corrects_the_scale_of_all(run: Path, tmp_path: Path) -> None:
    before = _trials(run)
    column = "h100-sxm.latency_s"
    told = before.index[:1]
    tell(run, _results(tmp_path, digest=told, **{column: before[column][told] * 3}))
    after = _trials(run)
    np.testing.assert_allclose(after[column], before[column] * 3, rtol=1e-6)
