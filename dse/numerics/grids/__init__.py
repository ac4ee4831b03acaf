"""Formats, roundings and scales as plain numbers that kernels follow."""
