"""Runtimes as data: which kernels each has, what it fuses, and what therefore can run where."""
