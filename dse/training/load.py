"""Method files: YAML to `Method`, all errors at once with field path and file name."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from dse.errors import MethodError, nearest
from dse.training.check import problems
from dse.training.method import Method
from hwmodels.validation import validated
from hwmodels.yaml_file import SUFFIXES, read_yaml

FOLDER = Path(__file__).parent / "methods"
REFERENCE = "bf16"
"""The method that every other one is compared with."""
_ADAPTER = TypeAdapter(Method)


def method_names() -> tuple[str, ...]:
    """Names of the methods that are shipped."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def method_name(name_or_path: str | Path) -> str:
    """The name of a shipped method, or of a file."""
    return Path(name_or_path).stem if _is_file(name_or_path) else str(name_or_path)


def load_method(name_or_path: str | Path) -> Method:
    """The shipped method of that name, or that of a YAML file.

    Raises:
        MethodError: an unknown name, or a file with missing, unknown or contradictory entries; the
            message lists all of them.
    """
    if _is_file(name_or_path):
        return _read(Path(name_or_path))
    if name_or_path not in method_names():
        known = method_names()
        raise MethodError(
            f"unknown method {str(name_or_path)!r}{nearest(str(name_or_path), known) or '.'} "
            f"Known: {', '.join(known)}; or give the path of a method file (.yaml)"
        )
    return _read(FOLDER / f"{name_or_path}.yaml")


def method_of(content: object, *, origin: str) -> Method:
    """The method that a mapping says, as a file would; `origin` names it in errors.

    Raises:
        MethodError: as `load_method`.
    """
    method = validated(_ADAPTER, content, origin, MethodError)
    if found := [f"{origin}: {line}" for line in problems(method)]:
        raise MethodError("\n".join(found))
    return method


def _is_file(name_or_path: str | Path) -> bool:
    return Path(name_or_path).suffix in SUFFIXES


def _read(path: Path) -> Method:
    return method_of(read_yaml(path, MethodError, what="method file"), origin=str(path))
