"""The README names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

from dse.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_it_names_exists() -> None:
    known = {str(command.name or command.callback.__name__) for command in app.registered_commands}  # type: ignore[union-attr]
    known |= {str(group.typer_instance.info.name) for group in app.registered_groups}  # type: ignore[union-attr]
    named = set(re.findall(r"(?:^|[`&] ?)dse ([a-z]+)", README, flags=re.MULTILINE))
    assert len(named) > 8
    assert named <= known


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_commands_that_continuous_integration_runs_are_there() -> None:
    lines = README.splitlines()
    assert "pip install . && dse search spaces/fp4.yaml" in lines
    assert "pip install -e '.[dev]' && pytest -n 2" in lines


def test_the_example_is_python_that_imports_what_exists() -> None:
    code = README.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    imports = "\n".join(line for line in code.splitlines() if line.startswith("from "))
    exec(imports, {})
