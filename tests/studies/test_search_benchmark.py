"""The tabular benchmark: entries recomputed by the evaluator, costs by the cost table."""

import numpy as np
import optuna
import pytest

from dse.explore.session import Session
from studies.search_benchmark.benchmark import DATA, NAMES, load
from studies.search_benchmark.prepare import session_of

optuna.logging.set_verbosity(optuna.logging.WARNING)
STORED = [name for name in NAMES if (DATA / f"{name}.npz").exists()]


@pytest.fixture(scope="module", params=STORED)
def session(request: pytest.FixtureRequest) -> Session:
    return session_of(request.param)


def _point(session: Session, names: tuple[str, ...], indices: np.ndarray) -> tuple[int, ...]:
    chosen = dict(zip(names, indices, strict=True))
    return tuple(int(chosen.get(variable.name, 0)) for variable in session.problem.variables)


def test_entries_are_what_the_evaluator_measures(session: Session) -> None:
    table = load(session.origin.rpartition("/")[2].removesuffix(".yaml"))
    # One draw from the rows whose samples are kept, one from all.
    numbers = [int(table.kept[0]), int(np.random.default_rng(1).integers(len(table.loss)))]
    for number in numbers:
        point = _point(session, tuple(table.variables), table.points[number])
        quality = session.evaluator.measure(session.problem.assignment(point))
        # BLAS may sum in another order elsewhere, and a rounded value may fall the other way.
        assert quality.loss == pytest.approx(table.loss[number], rel=0.02)
        assert quality.stderr == pytest.approx(table.stderr[number], rel=0.05)
    np.testing.assert_allclose(table.samples[0].mean(), table.loss[numbers[0]], rtol=1e-5)


def test_an_assignment_has_the_weights_that_the_tables_say(session: Session) -> None:
    # Latencies are those of the day a table was made: the cost model learns from measurements.
    table = load(session.origin.rpartition("/")[2].removesuffix(".yaml"))
    numbers = np.random.default_rng(0).integers(len(table.loss), size=5)
    points = [_point(session, tuple(table.variables), table.points[n]) for n in numbers]
    columns = [column for column in table.costs if column.endswith("weight_bytes")]
    now = session.costs.totals(np.array(points), columns)
    assert columns
    for place, column in enumerate(columns):
        np.testing.assert_allclose(table.costs[column][numbers], now[:, place], rtol=1e-5)


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
