"""Trials to a Pareto front."""
