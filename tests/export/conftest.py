"""Exports are asked for on the command line too."""

from __future__ import annotations

from tests.cli.conftest import dse

__all__ = ["dse"]
