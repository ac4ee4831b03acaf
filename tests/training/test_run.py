"""Runs and experiments: the same data for all, pieces that go on, seeds that end alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dse.errors import MethodError, RunError
from dse.training.checkpoint import read_checkpoint
from dse.training.experiment import Experiment, advance, open_folder, outcomes
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.run import Curve, HeldOut, Outcome, Run, shape
from dse.training.summary import Summary, divergences, summaries
from dse.training.workloads.workload import Batch, Workload, seeded
from tests.training.methods import method

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 12


@dataclass(frozen=True, kw_only=True)
class Stripes:
    """Points whose class is the sign of their first number."""

    name: str = "stripes"
    steps: int = STEPS
    rate: float = 0.01
    sgd_rate: float = 0.1
    origin: str = "a test"
    broken: int | None = None
    """Seed whose data are no numbers from the middle on."""

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    def batch(self, seed: int, step: int) -> Batch:
        x = torch.randn(32, 16, generator=seeded(seed, step))
        if seed == self.broken and step >= STEPS // 2:
            x = x * math.nan
        return Batch(inputs=x, labels=(x[:, 0] > 0).long())

    def held_out(self) -> list[Batch]:
        return [replace(self, broken=None).batch(10**6, part) for part in range(2)]


def finished(found: Method, workload: Workload, seed: int) -> Outcome:
    run = Run(found, workload, seed, steps=STEPS)
    while not run.done:
        run.advance()
    return run.outcome()


def in_pieces(found: Method, pause: int, folder: Path) -> Outcome:
    """As `finished` for a seed of 1, with a break after some steps, in another run."""
    first, second = (Run(found, Stripes(), 1, steps=STEPS) for _ in range(2))
    for _ in range(pause):
        first.advance()
    first.save(folder / "part.safetensors")
    second.resume(folder / "part.safetensors")
    while not second.done:
        second.advance()
    return second.outcome()


def experiment(folder: Path, *names: str, **options: object) -> Experiment:
    given: dict[str, object] = {"seeds": 2, "steps": STEPS, "workload": Stripes(), **options}
    return Experiment(folder=folder, methods={name: load_method(name) for name in names}, **given)  # type: ignore[arg-type]


def test_a_run_learns_and_says_what_every_step_did() -> None:
    found = finished(load_method("bf16"), Stripes(), 0)
    assert found.diverged_at is None
    assert found.last is not None
    assert found.last.loss < found.first.loss
    assert len(found.curve.loss) == len(found.curve.gradient_norm) == STEPS


def test_exact_training_is_what_torch_does_by_itself() -> None:
    """Two loops over the same data; the schedule is the run's."""
    workload = Stripes()
    found = finished(method(roles={"*": "fp32"}), workload, 3)
    model = workload.model(3)
    matrices = [one for one in model.parameters() if one.dim() > 1]
    rest = [one for one in model.parameters() if one.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0}]
    theirs = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    losses = []
    for step in range(STEPS):
        for group in theirs.param_groups:
            group["lr"] = workload.rate * shape(step, STEPS)
        batch = workload.batch(3, step)
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
        theirs.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        theirs.step()
        losses.append(float(loss.detach()))
    assert found.curve.loss == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "bf16",
        "fp8_delayed",
        "bf16_kahan",
        "fp16_mixed",
        "rl_fp16",
        "fp16_continued",
        "bit_switching",
        "cyclic_precision",
    ],
)
def test_a_run_in_pieces_is_the_run_in_one(name: str, tmp_path: Path) -> None:
    found = load_method(name)
    whole = finished(found, Stripes(), 1)
    assert in_pieces(found, STEPS // 2, tmp_path) == whole


def test_a_watch_on_oscillating_weights_goes_on_in_pieces(tmp_path: Path) -> None:
    settings = {"every": 5, "window": 3, "ratio": 2}
    found = method(roles={"weight": "int3_channel"}, oscillation=settings)
    whole = finished(found, Stripes(), 1)
    assert in_pieces(found, 7, tmp_path) == whole
    assert whole != finished(method(roles={"weight": "int3_channel"}), Stripes(), 1)


def test_a_plateau_in_pieces_changes_where_the_whole_run_does(tmp_path: Path) -> None:
    schedule = {"kind": "plateau", "window": 2, "threshold": 0.5, "decay": 1.0,
                "stages": [{"weight": f"int{bits}"} for bits in (2, 3, 8)]}  # fmt: skip
    found = method(schedule=schedule)
    whole = finished(found, Stripes(), 1)
    assert in_pieces(found, 3, tmp_path) == whole
    assert whole != finished(method(roles={"weight": "int2"}), Stripes(), 1)


def test_what_only_the_ledger_knows_is_not_run() -> None:
    with pytest.raises(MethodError, match=r"tuning\.density: .* nothing says which"):
        Run(method(tuning={"rank": 8, "density": 0.7}), Stripes(), 0, steps=STEPS)


def test_auto_mu_comes_down_until_weight_gradients_fit_their_format(tmp_path: Path) -> None:
    found = method(
        roles={"weight_gradient": "e4m3"}, loss_scale={"kind": "auto_mu", "initial": 2.0**20}
    )
    run = Run(found, Stripes(), 0, steps=STEPS)
    while not run.done:
        run.advance()
    run.save(tmp_path / "end.safetensors")
    assert read_checkpoint(tmp_path / "end.safetensors")["factor"] < 2.0**15
    assert run.outcome().diverged_at is None


def test_a_torn_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.safetensors"
    path.write_bytes(b"half of it")
    with pytest.raises(RunError, match="delete it"):
        Run(load_method("bf16"), Stripes(), 0, steps=STEPS).resume(path)


def test_a_seed_that_diverges_ends_alone(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16", "mxfp8", workload=Stripes(broken=1), seeds=3)
    open_folder(trial)
    assert advance(trial)
    found = outcomes(trial)
    assert {key: one.diverged_at for key, one in found.items()} == {
        (name, seed): STEPS // 2 if seed == 1 else None
        for name in ("bf16", "mxfp8")
        for seed in range(3)
    }
    rows = {one.method: one for one in summaries(found, "bf16")}
    assert rows["mxfp8"].diverged == 1
    assert len(rows["mxfp8"].pairs) == 2
    assert math.isfinite(rows["mxfp8"].loss)


def test_a_model_that_ends_no_better_than_it_began_has_diverged() -> None:
    high = method(update={"learning_rate": 300.0, "clip_norm": 0, "optimizer": "sgd"})
    found = finished(high, Stripes(), 0)
    assert found.diverged_at is not None


def test_all_methods_see_the_same_start_and_the_same_data(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16", "fp32")
    open_folder(trial)
    advance(trial)
    found = outcomes(trial)
    for seed in range(2):
        ours, exact = found["bf16", seed], found["fp32", seed]
        assert ours.curve.loss[0] == pytest.approx(exact.curve.loss[0], abs=2e-3)
    assert found["fp32", 0].curve.loss[0] != found["fp32", 1].curve.loss[0]


def test_an_experiment_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = experiment(tmp_path / "whole", "bf16", "mxfp8")
    open_folder(whole)
    assert advance(whole)
    pieces = experiment(tmp_path / "pieces", "bf16", "mxfp8")
    open_folder(pieces)
    assert not advance(pieces, until=0.0)
    assert outcomes(pieces) == {}
    open_folder(pieces)
    assert advance(pieces)
    assert outcomes(pieces) == outcomes(whole)
    assert not list((tmp_path / "pieces").rglob("*.safetensors"))


def test_runs_side_by_side_are_those_one_after_another(tmp_path: Path) -> None:
    alone, together = (
        experiment(tmp_path / name, "bf16", "mxfp8") for name in ("alone", "together")
    )
    seen: list[tuple[int, int]] = []
    for one, workers in ((alone, 1), (together, 2)):
        open_folder(one)
        assert advance(
            one, workers=workers, listener=lambda done, total, _: seen.append((done, total))
        )
    assert outcomes(together) == outcomes(alone)
    assert seen[-1] == (4 * STEPS, 4 * STEPS)


def test_workers_stop_with_a_piece_and_go_on(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16")
    open_folder(trial)
    assert not advance(trial, workers=2, until=0.0)
    assert outcomes(trial) == {}
    assert advance(trial)


def test_a_learning_rate_can_be_multiplied() -> None:
    whole = finished(method(update={"learning_rate": 0.02}), Stripes(), 0)
    run = Run(method(), Stripes(rate=0.01), 0, steps=STEPS, rate_factor=2.0)
    while not run.done:
        run.advance()
    assert run.outcome() == whole


def test_runs_of_another_rate_do_not_share_a_folder(tmp_path: Path) -> None:
    open_folder(experiment(tmp_path / "run", "bf16"))
    with pytest.raises(RunError, match="rate_factor"):
        open_folder(experiment(tmp_path / "run", "bf16", rate_factor=2.0))


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="torch finds no GPU here"):
        open_folder(experiment(tmp_path / "run", "bf16", device="cuda"))
    open_folder(experiment(tmp_path / "run", "bf16", device="cuda"), on_ray=True)


def test_divergence_is_counted_over_seeds_and_learning_rates() -> None:
    good = finished(load_method("bf16"), Stripes(), 0)
    bad = replace(good, diverged_at=3)
    found = {1.0: {("x", seed): good for seed in range(4)}}
    found[3.0] = {("x", seed): bad if seed else good for seed in range(4)}
    (row,) = divergences(found)
    assert row.by_rate == {1.0: (0, 4), 3.0: (3, 4)}
    assert row.share.mean == 3 / 8
    assert (row.share.low, row.share.high) == pytest.approx((0.1368, 0.6943), abs=1e-3)


def test_stability_has_intervals_over_seeds() -> None:
    found = {("bf16", seed): finished(load_method("bf16"), Stripes(), seed) for seed in range(3)}
    (row,) = summaries(found, "bf16")
    assert row.intervals.keys() == {
        "loss_spikes", "update_spikes", "gradient_norm", "update_rms", "sharpness",
    }  # fmt: skip
    norm = row.intervals["gradient_norm"]
    assert norm is not None
    assert norm.mean == pytest.approx(row.gradient_norm)
    assert norm.low < norm.mean < norm.high


def test_an_interruption_keeps_the_step(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16")
    open_folder(trial)

    def stop(done: int, total: int, note: str) -> None:
        assert total == 2 * STEPS
        assert note == "bf16, seed 0"
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        advance(trial, listener=stop)
    seen: list[int] = []
    advance(trial, listener=lambda done, _total, _note: seen.append(done))
    assert seen[0] == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": STEPS + 1}, "steps: the runs there have 12, these would have 13"),
        ({"workload": Stripes(origin="other text")}, "data: the runs there"),
    ],
)
def test_runs_that_cannot_be_compared_do_not_share_a_folder(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    open_folder(experiment(tmp_path / "run", "bf16"))
    with pytest.raises(RunError, match=words):
        open_folder(experiment(tmp_path / "run", "bf16", **change))


def test_a_method_that_was_changed_does_not_go_on(tmp_path: Path) -> None:
    open_folder(experiment(tmp_path / "run", "bf16"))
    other = replace(experiment(tmp_path / "run", "bf16"), methods={"bf16": load_method("mxfp8")})
    with pytest.raises(RunError, match="was another one when it was run"):
        open_folder(other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        open_folder(experiment(tmp_path, "bf16"))


def test_a_result_that_is_torn_is_named(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16")
    open_folder(trial)
    (tmp_path / "run" / "bf16" / "seed-0.json").write_text('{"seed": 0')
    with pytest.raises(RunError, match=r"seed-0.json: cannot be read"):
        outcomes(trial)


def test_the_gap_is_paired_by_seed() -> None:
    """Losses of seeds that differ far more than methods do."""
    base = finished(load_method("bf16"), Stripes(), 0)
    assert base.last is not None

    def outcome(seed: int, loss: float) -> Outcome:
        assert base.last is not None
        return replace(base, seed=seed, last=replace(base.last, loss=loss))

    found = {("bf16", seed): outcome(seed, 1.0 + seed) for seed in range(5)}
    found |= {("x", seed): outcome(seed, 1.1 + seed + 0.001 * seed) for seed in range(5)}
    rows = {one.method: one for one in summaries(found, "bf16")}
    ours: Summary = rows["x"]
    assert ours.gap is not None
    assert ours.gap.mean == pytest.approx(0.102)
    assert ours.gap.high - ours.gap.low < 0.01
    assert rows["bf16"].gap is None


def test_curves_are_kept_as_json(tmp_path: Path) -> None:
    trial = experiment(tmp_path / "run", "bf16", seeds=1)
    open_folder(trial)
    advance(trial)
    kept = json.loads((tmp_path / "run" / "bf16" / "seed-0.json").read_text())
    assert len(kept["curve"]["loss"]) == STEPS


def test_a_model_that_does_not_move_has_diverged() -> None:
    run = Run(method(), Stripes(), 0, steps=5, rate_factor=1e-30)
    while not run.done:
        run.advance()
    found = run.outcome()
    assert found.last is not None
    assert found.last.loss == found.first.loss
    assert found.diverged_at == 5


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_factor_of_the_loss_changes_no_step(kind: str) -> None:
    """SGD, whose step is as long as its gradient."""
    update = {"optimizer": "sgd", "clip_norm": 0, "weight_decay": 0}
    roles = {"*": "fp32", "weight_gradient": "fp16"}
    plain, scaled = (
        finished(method(roles=roles, update=update, **more), Stripes(), 0)
        for more in ({}, {"loss_scale": {"kind": kind, "initial": 64.0}})
    )
    assert plain.last is not None
    assert scaled.last is not None
    assert scaled.skipped == 0
    assert scaled.last.loss == pytest.approx(plain.last.loss, rel=1e-3)
    assert scaled.curve.gradient_norm == pytest.approx(plain.curve.gradient_norm, rel=1e-2)


def test_a_step_whose_gradients_overflow_is_left_out() -> None:
    roles = {"*": "fp32", "weight_gradient": "fp16"}
    scale = {"kind": "dynamic", "initial": 2.0**21}
    found = finished(method(roles=roles, loss_scale=scale), Stripes(), 0)
    assert found.diverged_at is None
    assert 2 <= found.skipped <= STEPS // 2
    assert len(found.curve.update_rms) == STEPS - found.skipped


def test_a_reference_that_diverged_is_no_pair() -> None:
    """It may have a loss: no better than the one it began with."""
    held = HeldOut(loss=1.0, accuracy=0.5, sharpness=0.1)
    runs = {
        (name, seed): Outcome(
            seed=seed, steps=3, first=held, last=held, skipped=0, curve=Curve(),
            diverged_at=3 if name == "bf16" and seed == 0 else None,
        )
        for name in ("bf16", "x")
        for seed in range(3)
    }  # fmt: skip
    (row,) = (one for one in summaries(runs, "bf16") if one.method == "x")
    assert len(row.pairs) == 2
