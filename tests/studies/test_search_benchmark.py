"""The tabular benchmark: entries recomputed by the evaluator, costs by the cost table."""

from pathlib import Path

import numpy as np
import optuna
import pytest

from dse.explore.measure.session import Session
from studies.search_benchmark.benchmark import DATA, NAMES, load
from studies.search_benchmark.prepare import session_of
from studies.search_benchmark.reprice import cost_model_digest, repriced

optuna.logging.set_verbosity(optuna.logging.WARNING)
SUMS = ("latency_s", "energy_j", "weight_bytes")
STORED = [name for name in NAMES if (DATA / f"{name}.npz").exists()]


@pytest.fixture(scope="module", params=STORED)
def session(request: pytest.FixtureRequest) -> Session:
    return session_of(request.param)


def _point(session: Session, names: tuple[str, ...], indices: np.ndarray) -> tuple[int, ...]:
    chosen = dict(zip(names, indices, strict=True))
    return tuple(
        int(chosen.get(variable.name, 0)) for variable in session.design.problem.variables
    )


def test_entries_are_what_the_evaluator_measures(session: Session) -> None:
    table = load(session.design.origin.rpartition("/")[2].removesuffix(".yaml"))
    # One draw from the rows whose samples are kept, one from all.
    numbers = [int(table.kept[0]), int(np.random.default_rng(1).integers(len(table.loss)))]
    for number in numbers:
        point = _point(session, tuple(table.variables), table.points[number])
        quality = session.evaluator.measure(session.design.problem.assignment(point))
        # BLAS may sum in another order elsewhere, and a rounded value may fall the other way:
        # from a Xeon to an EPYC 2 % of a loss and 5 % of a standard error.
        assert quality.loss == pytest.approx(table.loss[number], rel=0.05)
        assert quality.stderr == pytest.approx(table.stderr[number], rel=0.15)
    np.testing.assert_allclose(table.samples[0].mean(), table.loss[numbers[0]], rtol=1e-5)


def test_a_table_priced_anew_has_the_costs_of_today_and_the_losses_that_were_measured(
    session: Session, tmp_path: Path
) -> None:
    name = session.design.origin.rpartition("/")[2].removesuffix(".yaml")
    np.savez_compressed(tmp_path / f"{name}.npz", **repriced(name, session.design, SUMS))  # type: ignore[arg-type]
    stored, table = load(name), load(name, tmp_path)
    for kept in ("loss", "stderr", "report_loss", "samples", "alone", "gradient"):
        np.testing.assert_array_equal(getattr(table, kept), getattr(stored, kept))
    numbers = np.random.default_rng(0).integers(len(table.loss), size=5)
    points = [_point(session, tuple(table.variables), table.points[n]) for n in numbers]
    columns = list(table.costs)
    assert set(columns) < set(stored.costs)
    now = session.design.costs.totals(np.array(points), columns)
    for place, column in enumerate(columns):
        np.testing.assert_allclose(table.costs[column][numbers], now[:, place], rtol=1e-5)
    assert table.cost_model.endswith(cost_model_digest())
    # Latencies are those of the cost model that a table names; bytes follow from the formats.
    assert stored.cost_model
    for column in columns:
        if column.endswith("weight_bytes"):
            np.testing.assert_allclose(stored.costs[column], table.costs[column], rtol=1e-5)


@pytest.mark.parametrize("name", STORED)
def test_a_table_is_an_optuna_objective(name: str) -> None:
    table = load(name)
    column = next(iter(table.costs))
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(table.objective(column), n_trials=3)
    values = table.values(column)
    for trial in study.trials:
        assert (values == np.array(trial.values)).all(axis=1).any()


def test_all_tables_together_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.glob("*.npz")) <= 5_000_000
    assert all(len(load(name).loss) >= 65_000 for name in STORED)
