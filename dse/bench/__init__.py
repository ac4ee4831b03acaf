"""Readers of what scorers and benchmarks of runtimes write, as it is."""
