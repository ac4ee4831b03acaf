"""Seeds of a method: split apart, compared in pairs, ended where they are clearly worse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dse.errors import RunError
from dse.training.load import load_method
from dse.training.search import pool
from dse.training.search.gaps import gap
from dse.training.search.pool import Places, pool_of
from dse.training.search.seed_run import (
    LOOKS,
    Job,
    Rival,
    SeedRun,
    keep_piece,
    margins,
    read_seed_run,
    train_piece,
    trained,
)
from dse.training.search.split import half, seeds_of
from dse.training.workloads.catalogue import workload
from dse.training.workloads.workload import Workload
from tests.training.test_run import STEPS, Stripes


def run(loss: float | None, *, seed: int = 0, first: float = 2.0) -> SeedRun:
    return SeedRun(
        seed=seed, first_loss=first, loss=loss, diverged_at=None if loss is not None else 5,
        ended_at=None, seconds=0.0, losses=(2.0, 1.0, 0.5, 0.25, 0.2),
    )  # fmt: skip


def job(folder: Path, *, seed: int = 0, rival: Rival | None = None) -> Job:
    return Job(
        folder=folder, method=load_method("bf16"), split="search", seed=seed, steps=STEPS,
        rival=rival,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["digits-mlp", "byte-gpt-64"])
def test_search_and_report_share_neither_seeds_nor_samples(name: str) -> None:
    assert not set(seeds_of("search", 1000)) & set(seeds_of("report", 1000))
    whole = workload(name)
    parts = [half(whole, split).held_out() for split in ("search", "report")]
    together = torch.cat([batch.inputs for part in parts for batch in part])
    assert torch.equal(together, torch.cat([batch.inputs for batch in whole.held_out()]))
    first, second = ({tuple(row.flatten().tolist()) for b in part for row in b.inputs}
                     for part in parts)  # fmt: skip
    assert not first & second
    assert half(whole, "search").steps == whole.steps


def test_gaps_are_paired_by_seed() -> None:
    ours = {0: run(1.1), 1: run(3.1), 2: run(5.4)}
    theirs = {0: run(1.0), 1: run(3.0), 2: run(5.0)}
    found = gap(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert found.interval is not None
    half_width = 4.302653 * math.sqrt(0.03) / math.sqrt(3)  # Student's t, two degrees of freedom
    assert found.interval.high - found.mean == pytest.approx(half_width, rel=1e-5)


def test_a_seed_that_diverges_counts_as_a_network_that_learned_nothing() -> None:
    found = gap({0: run(1.1), 1: run(None)}, {0: run(1.0), 1: run(1.0)})
    assert found.pairs == pytest.approx((0.1,))
    assert found.diverged == 1
    assert found.mean == pytest.approx((0.1 + 1.0) / 2)


def test_a_seed_without_numbers_ends_alone(tmp_path: Path) -> None:
    stripes = Stripes(broken=1)
    found = {seed: trained(job(tmp_path, seed=seed), stripes) for seed in (0, 1)}
    assert found[0].loss is not None
    assert (found[1].loss, found[1].diverged_at) == (None, STEPS // 2)


def test_a_run_that_is_clearly_worse_than_its_rival_is_ended(tmp_path: Path) -> None:
    whole = trained(job(tmp_path), Stripes())
    better = Rival(losses=tuple(one - 1 for one in whole.losses), margins=(0.5,) * len(LOOKS))
    ended = trained(job(tmp_path / "again", rival=better), Stripes())
    assert ended.ended_at == round(LOOKS[0] * STEPS)
    assert ended.losses == whole.losses[: ended.ended_at]
    assert not job(tmp_path / "again").place.exists()
    near = replace(better, margins=(1.5,) * len(LOOKS))
    assert trained(job(tmp_path / "near", rival=near), Stripes()).ended_at is None


def test_margins_are_the_spread_of_bf16_over_seeds() -> None:
    runs = [replace(run(1.0), losses=tuple(one + shift for one in run(1.0).losses))
            for shift in (0.0, 0.3, 0.1)]  # fmt: skip
    assert margins(runs, 5) == pytest.approx((0.3,) * len(LOOKS))


def test_a_run_is_read_where_an_earlier_process_has_made_it(tmp_path: Path) -> None:
    whole = trained(job(tmp_path), Stripes())
    assert trained(job(tmp_path), Stripes(broken=0)) == whole
    job(tmp_path).place.write_text("{")
    with pytest.raises(RunError, match="delete it to run it again"):
        read_seed_run(job(tmp_path).place)


def test_workers_train_what_this_process_would(tmp_path: Path) -> None:
    digits = workload("digits-mlp")
    jobs = [job(tmp_path / "here", seed=seed) for seed in (0, 1)]
    with pool_of(digits, Places(count=1)) as one:
        here = one.run(jobs)
    with pool_of(digits, Places(count=2)) as two:
        there = two.run([replace(each, folder=tmp_path / "there") for each in jobs])
    assert [one.losses for one in there] == [one.losses for one in here]
    assert [one.loss for one in there] == [one.loss for one in here]


def test_a_pool_of_one_trains_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []

    def noted(job: Job, *, workload: Workload, device: str) -> SeedRun:
        devices.append(device)
        return trained(job, workload)

    monkeypatch.setattr(pool, "trained", noted)
    with pool_of(Stripes(), Places(count=1, device="cuda")) as found:
        found.run([job(tmp_path)])
    assert devices == ["cuda"]


def test_pieces_that_send_their_checkpoints_end_where_one_process_does(tmp_path: Path) -> None:
    whole = trained(job(tmp_path / "here"), Stripes())
    there = job(tmp_path / "there")
    kept, steps, found = None, 0, None
    while found is None:
        piece = train_piece(Stripes(), "cpu", there, kept, seconds=0)
        kept, steps = piece.content, steps + piece.steps
        found = keep_piece(there, piece)
        assert there.checkpoint.exists() != piece.ended
    assert steps == STEPS
    assert replace(found, seconds=0) == replace(whole, seconds=0)
    assert read_seed_run(there.place) == found


def test_a_piece_that_its_rival_ends_leaves_no_result(tmp_path: Path) -> None:
    whole = trained(job(tmp_path / "here"), Stripes())
    better = Rival(losses=tuple(one - 1 for one in whole.losses), margins=(0.5,) * len(LOOKS))
    there = job(tmp_path / "there", rival=better)
    piece = train_piece(Stripes(), "cpu", there, None, seconds=60)
    found = keep_piece(there, piece)
    assert piece.ended
    assert found is not None
    assert found.ended_at == piece.steps == round(LOOKS[0] * STEPS)
    assert list(there.folder.iterdir()) == []
