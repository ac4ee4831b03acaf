"""What `import dse` shows, and when it loads what."""

from __future__ import annotations

import ast
import rlcompleter
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dse


def test_completion_shows_the_api_and_nothing_else() -> None:
    import_module("dse.report")
    assert sorted(dir(dse)) == sorted(dse.__all__)
    completer = rlcompleter.Completer({"dse": dse})
    shown = [str(completer.complete("dse.", index)) for index in range(len(dse.__all__) + 10)]
    public = {name for name in dse.__all__ if not name.startswith("_")}
    assert {name.removeprefix("dse.").rstrip("()") for name in shown if name != "None"} == public


@pytest.mark.parametrize("name", [name for name in dse.__all__ if name != "__version__"])
def test_every_name_is_at_home_where_it_is_said_to_be(name: str) -> None:
    found = getattr(dse, name)
    assert found.__doc__
    assert getattr(found, "__module__", "").startswith(("dse.", "hwmodels."))


def test_type_checkers_see_every_name() -> None:
    """`__getattr__` gives objects; the imports for type checkers say what they are."""
    tree = ast.parse(Path("dse/__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == dse._HOMES
    assert all((Path(package) / "py.typed").exists() for package in ("dse", "hwmodels"))


def test_importing_dse_loads_nothing_heavy() -> None:
    code = "import sys, dse; print([m for m in ('torch', 'optuna', 'pandas', 'onnx') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
