"""A budget solved by scores alone, against every assignment of the space."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dse.errors import InfeasibleError, RunError, SpaceError
from dse.explore.problem.design import Design, open_design
from dse.explore.solution import solve, surrogate_of
from dse.explore.solve.surrogate import Surrogate
from dse.sensitivity.table import measure
from dse.space.load import validated

FREE = "h100-sxm:free"
"""The shortcut of a block is read by two regions, and converted once if they agree."""
VELA = "ethos-u55:vela"
"""A tensor is stored in one format, and who wants another converts."""
CHOICES = ("bf16", "w8a8_int8_static", "w4a16")


def opened(target: str, *constraints: str) -> Design:
    """Four ties of fashion-resnet."""
    ties = {"blocks.[01]/*": "early", "blocks.[23]/*": "middle", "blocks.[45]/*": "late"}
    content = {
        "model": "zoo:fashion-resnet",
        "data": {"source": "zoo:fashion-resnet"},
        "scenario": {"phases": {"call": {"dims": {"batch": 32}}}},
        "targets": [target],
        "candidates": [{"use": list(CHOICES)}],
        "ties": [{"match": {"name": glob}, "name": name} for glob, name in ties.items()],
        "constraints": list(constraints),
    }
    return open_design(validated(content, origin="test"), origin="test", folder=Path())


def scores(design: Design, seed: int) -> Surrogate:
    rng = np.random.default_rng(seed)
    sizes = [len(variable.choices) for variable in design.problem.variables]
    return Surrogate(losses=tuple(np.r_[0.0, rng.gamma(0.5, size=size - 1)] for size in sizes))


@pytest.mark.parametrize("target", [FREE, VELA])
@pytest.mark.parametrize("column", ["latency_s", "weight_bytes"])
def test_a_solution_keeps_its_budget_and_nothing_within_it_is_better(
    target: str, column: str
) -> None:
    design = opened(target)
    sizes = [len(variable.choices) for variable in design.problem.variables]
    points = np.array(list(product(*map(range, sizes))))
    costs = design.totals(points, [column])[:, 0]
    for seed, share in enumerate((0.3, 0.7)):
        surrogate = scores(design, seed)
        limit = float(np.quantile(costs, share))
        limited = opened(target, f"{column}<={limit!r}")
        found = solve(limited, surrogate)
        losses = surrogate.predict(points)
        best = float(losses[costs <= limit].min())
        assert found.costs[column] <= limit * (1 + 1e-6)
        assert found.loss >= best * (1 - 1e-6)
        if found.gap is None:  # formats of neighbours decide each other's cost
            assert target == VELA
        else:
            assert found.bound is not None
            assert found.bound <= best * (1 + 1e-6) + 1e-9
            assert found.loss <= best * (1 + found.gap + 1e-6)


def test_a_budget_is_needed_and_a_limit_on_loss_is_kept() -> None:
    design = opened(FREE)
    with pytest.raises(SpaceError, match="nothing limits a cost"):
        solve(design, scores(design, 0))
    least = float(design.totals(np.array([[0] * 5]), ["weight_bytes"])[0, 0]) / 2
    tight = opened(FREE, f"weight_bytes<={least}", "quality_loss<=1e-9")
    with pytest.raises(InfeasibleError, match=r"quality_loss<=1e-09: .* has quality_loss"):
        solve(tight, scores(tight, 0))


def test_a_table_must_have_every_choice(tmp_path: Path) -> None:
    design = opened(FREE)
    table = measure(design.problem, lambda variable, choice: (0.1 * choice, 0.01, 8))
    path = tmp_path / "scores.csv"
    path.write_text(table.to_csv())
    losses = surrogate_of(path, design).losses
    assert all(entries.tolist() == [0.0, 0.1, 0.2] for entries in losses)
    path.write_text("".join(table.to_csv().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=r"no row of variable '.*' and choice 'w4a16'"):
        surrogate_of(path, design)
