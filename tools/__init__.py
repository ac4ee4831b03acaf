"""Generators of the project's documents."""
