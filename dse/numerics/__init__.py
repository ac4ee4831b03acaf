"""Quantizers applied to values."""
