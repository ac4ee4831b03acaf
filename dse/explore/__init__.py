"""Trials to a Pareto front."""

from dse.explore.run import Overrides, SearchResult, run_search

__all__ = ["Overrides", "SearchResult", "run_search"]
