"""Enumerated mixed-precision searches as problems for Optuna."""

from ._problem import Problem

__all__ = ["Problem"]
