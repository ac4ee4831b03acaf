"""Processors: blocked products, convolutions, rows and tables, by core, vector and cache."""
