"""The findings of a graph are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.explore.problem.design import open_design
from dse.graph.patterns import analysis
from dse.space.load import load_space

ROOT = Path(__file__).parents[3]
FINDINGS = ("flow_of", "attentions", "norms", "experts", "partition")


@pytest.mark.parametrize("finding", FINDINGS)
def test_an_opening_searches_each_graph_once(
    finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    search = getattr(analysis, finding)

    def counted(*arguments: object, **named: object) -> object:
        searched.append(finding)
        return search(*arguments, **named)

    monkeypatch.setattr(analysis, finding, counted)
    path = ROOT / "spaces" / "fp4.yaml"
    design = open_design(load_space(path), origin=path.name, folder=path.parent)
    assert design.cost_model is not None
    assert len(searched) == len({design.model.name, design.cost_model.name})
