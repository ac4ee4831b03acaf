"""The command line: parse, call, print; no logic.

Modules are groups of commands. What a command needs is imported inside it, so that `dse --help`
loads none of torch, optuna, plotly or scikit-learn.
"""

from __future__ import annotations

from dse.cli.app import main

__all__ = ["main"]
