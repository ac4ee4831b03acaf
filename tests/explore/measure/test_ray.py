"""Evaluations on a real local Ray cluster of two nodes, one of which goes away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from dse.explore.loop import run
from dse.explore.measure.parallelism import Parallelism
from dse.run.read import read_failures
from tests import ray_cluster
from tests.explore import metrics
from tests.explore.measure.test_parallelism import TRIALS, front, session, settled

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = ray_cluster.MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster.two_nodes() as found:
        yield found


def test_actors_find_what_workers_find_though_some_die_with_their_node(
    cluster: Cluster, two_workers: Path, tmp_path: Path
) -> None:
    import ray  # noqa: PLC0415 (an extra)

    marks = metrics.Marks(folder=tmp_path, driver=os.getpid())
    deadly = partial(metrics.deadly, marks=marks)
    run(session(deadly), tmp_path / "actors", parallelism=Parallelism(executor="ray"))
    assert len(ray.nodes()) == 2
    assert (tmp_path / "deaths").stat().st_size == 3
    assert len(settled(tmp_path / "actors")) == TRIALS
    assert settled(tmp_path / "actors") == settled(two_workers)
    pd.testing.assert_frame_equal(front(two_workers), front(tmp_path / "actors"))
    assert read_failures(tmp_path / "actors") == {}


def test_a_node_that_goes_away_takes_no_trial_along(cluster: Cluster, tmp_path: Path) -> None:
    gone = list(cluster.worker_nodes)
    left: list[int] = []

    def leave(done: int) -> None:
        if done >= 4 and not left:
            left.append(done)
            cluster.remove_node(gone[0], allow_graceful=False)

    run(
        session(metrics.slow),
        tmp_path / "actors",
        parallelism=Parallelism(executor="ray", workers=2),
        progress=lambda status: leave(status.done if status.stage == "trials" else 0),
    )
    assert left
    assert len(settled(tmp_path / "actors")) == TRIALS
