"""The run that several ways of measuring are compared with."""

from __future__ import annotations

from tests.explore.measure.test_parallelism import two_workers

__all__ = ["two_workers"]
