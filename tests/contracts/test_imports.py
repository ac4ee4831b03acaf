"""Layers, and what the packages show to the outside."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "optuna", "plotly", "sklearn", "pandas", "onnx", "scipy", "numba")


def test_imports_point_one_way() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]  # fmt: skip  # noqa: E501
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert ", 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("dse.cli", ["main"]),
        ("dse.report", ["compare", "front_rows", "print_front", "write_report"]),
        ("dse.explore", ["Overrides", "SearchResult", "run_search"]),
    ],
)
def test_a_package_shows_exactly_these_names(package: str, names: list[str]) -> None:
    assert sorted(importlib.import_module(package).__all__) == names


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dse.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")
