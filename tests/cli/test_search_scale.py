"""`dse search` with workers and storages: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.cli.conftest import Dse


def test_workers_give_a_front_like_any_search(dse: Dse, space: Path, tmp_path: Path) -> None:
    outcome = dse("search", space, "--out", tmp_path / "run", "--trials", 5, "--workers", 1)
    assert outcome.code == 0, outcome.err
    assert "5/5" in outcome.err
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--join"], 2, "--join and --study need --storage"),
        (["--workers", "0"], 2, "--workers"),
        (["--storage", "postgresql://me:secret@127.0.0.1:1/x"], 1, "me:***@127.0.0.1:1/x"),
        (["--storage", "nonsense://x"], 1, "nonsense://x"),
        (["--executor", "slurm"], 2, "'local', 'ray'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(  # noqa: PLR0917
    dse: Dse, space: Path, tmp_path: Path, flags: list[str], code: int, says: str
) -> None:
    outcome = dse("search", space, "--out", tmp_path / "run", *flags)
    assert outcome.code == code
    assert says in outcome.err
    assert "secret" not in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_study_on_disk_is_shared_and_another_space_refused(
    dse: Dse, space: Path, tmp_path: Path
) -> None:
    shared = ["--storage", f"sqlite:///{tmp_path / 'study.db'}", "--trials", 4]
    first = dse("search", space, "--out", tmp_path / "first", *shared)
    assert first.code == 0, first.err
    second = dse("search", space, "--out", tmp_path / "second", *shared, "--join")
    assert second.code == 0, second.err
    assert (tmp_path / "first" / "front.csv").read_text() == (
        tmp_path / "second" / "front.csv"
    ).read_text()
    other = dse("search", space, "--out", tmp_path / "other", *shared, "--join", "--seed", 9)
    assert other.code == 2
    assert "its space differs" in other.err
    assert "seed: was 0, is 9" in other.err


def test_a_shared_study_goes_on_outside(dse: Dse, space: Path, tmp_path: Path) -> None:
    run, storage = tmp_path / "run", f"sqlite:///{tmp_path / 'study.db'}"
    assert dse("search", space, "--out", run, "--trials", 4, "--storage", storage).code == 0
    found = dse("propose", run, "-n", 1, "-o", tmp_path / "next", "--storage", storage)
    assert f"dse tell {run} RESULTS.csv --storage {storage}" in found.out
    results = tmp_path / "results.csv"
    digest = next((tmp_path / "next").glob("*.json")).stem
    results.write_text(f"digest,quality_loss\n{digest},0.1\n")
    timed = tmp_path / "times.csv"
    timed.write_text(f"digest,latency_s\n{digest},0.1\n")
    assert "0 of them new trials; 1 have no loss yet" in dse("tell", run, timed).out
    told = dse("tell", run, results)
    assert "1 assignments told, 1 of them new trials\n" in told.out
    again = dse("search", "--from", run, "--target", "b200-sxm:free", "--out", tmp_path / "new")
    assert again.code == 0, again.err
    assert "[I " not in again.err
    assert digest in (tmp_path / "new" / "trials.csv").read_text()


def test_proposals_for_another_runs_target_are_named(
    dse: Dse, space: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "next"
    assert dse("search", space, "--out", run, "--trials", 3).code == 0
    (other / "results" / "reference").mkdir(parents=True)
    plan = {"version": 1, "to": "modelopt", "target": "mine", "models": {}}
    (other / "plan.json").write_text(json.dumps(plan))
    score = {"results": {"t": {"alias": "t", "acc,none": 0.5}}, "lm_eval_version": "0.4.9"}
    (other / "results" / "reference" / "results_1.json").write_text(json.dumps(score))
    found = dse("tell", run, other)
    assert found.code == 2
    assert f"{other}: was proposed for mine: not a target of this run" in found.err


def _samples(path: Path, seed: int) -> Path:
    values = np.random.default_rng(seed).standard_normal((96, 64))
    np.savez(path, x=values.astype(np.float32))
    return path


TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 64] x) => (float[batch, 64] y)
{ a = MatMul(x, u)  b = Relu(a)  y = MatMul(b, v) }
"""


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A network of two layers, as another tool might have written it."""
    model, random = onnx.parser.parse_model(TEXT), np.random.default_rng(0)
    for name in ("u", "v"):
        weights = random.standard_normal((64, 64)).astype(np.float32) / 8
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    path = tmp_path / "mlp.onnx"
    onnx.save(model, path)
    return path


def test_other_samples_of_the_same_name_are_not_joined(
    dse: Dse, mlp: Path, tmp_path: Path
) -> None:
    """Two machines may hold different files under one name: their losses are not one table."""
    data = _samples(tmp_path / "x.npz", seed=1)
    shared = ["--data", data, "--trials", 4, "--storage", f"sqlite:///{tmp_path / 'study.db'}"]
    assert dse("search", mlp, "--out", tmp_path / "first", *shared).code == 0
    taken = dse(
        "search", "--from", tmp_path / "first", "--target", "a30", "--out", tmp_path / "new"
    )
    assert taken.code == 0, taken.err
    _samples(data, seed=2)
    joined = dse("search", mlp, "--out", tmp_path / "second", *shared, "--join")
    assert joined.code == 2
    assert "is another search: its data hold other samples" in joined.err
    gone_on = dse("search", "--out", tmp_path / "new", "--resume")
    assert gone_on.code == 2
    assert "its data hold other samples" in gone_on.err
