"""Layers, and what the packages show to the outside."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "optuna", "plotly", "sklearn", "pandas", "onnx", "scipy", "numba")
UNPRICED = ("torch", "optuna", "plotly", "sklearn", "pandas", "sympy", "numba")


def test_imports_point_one_way() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]  # fmt: skip  # noqa: E501
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert ", 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("dse.cli", ["main"]),
        ("dse.explore", ["Overrides", "SearchResult", "run_search"]),
    ],
)
def test_a_package_shows_exactly_these_names(package: str, names: list[str]) -> None:
    assert sorted(importlib.import_module(package).__all__) == names


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert _loaded(arguments, HEAVY) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "spaces/smoke.yaml"],
        [
            "predict",
            "zoo:fashion-resnet",
            "--device",
            "h100-sxm",
            "--format",
            "w8a8_fp8",
            "--dim",
            "batch=1",
        ],
        [
            "predict",
            "zoo:fashion-resnet",
            "--device",
            "h100-sxm",
            "--training",
            "fp8_current",
            "--dim",
            "batch=1",
        ],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_price_is_found_without_what_measures_draws_or_proves(arguments: list[str]) -> None:
    assert _loaded(arguments, UNPRICED) == []


def _loaded(arguments: list[str], names: tuple[str, ...]) -> list[str]:
    """The modules of these names that a command line loads in a process of its own."""
    code = (
        "import json, sys\n"
        "from dse.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
