"""Objects that a file names: `module:name`, installed or in a file beside it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from pathlib import Path
from types import ModuleType

from hwmodels.errors import PluginError

_RUN: set[str] = set()
"""Names of modules that were run from files: another folder may have one of the same name."""


def named_object(text: str, folder: Path) -> object:
    """The object that `module:name` or `file.py:name` says.

    A file beside what names it is not put on the module path: it shadows nothing.

    Args:
        text: `module:name`, the module may be dotted; or `file.py:name`.
        folder: that of what names it: files are looked for there, and nowhere else.

    Raises:
        PluginError: no such module or name, or the module cannot be run.
    """
    module_name, _, name = text.partition(":")
    path = code_file(text, folder)
    try:
        module = importlib.import_module(module_name) if path is None else _of_file(path)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # what a module runs may raise anything
        raise PluginError(
            f"{text}: {type(error).__name__}: {error}; expected an importable module:name"
        ) from error


def code_file(text: str, folder: Path) -> Path | None:
    """The file in a folder that a name would run; None for an installed module. Runs nothing.

    Python's own modules are refused: `os:abort` is no data. A module of the working directory is
    none that is installed, though some ways to start Python find it.

    Args:
        text: as `named_object`.
        folder: as `named_object`.

    Raises:
        PluginError: neither a module that is installed nor a file in the folder.
    """
    module_name = text.partition(":")[0]
    top = module_name.partition(".")[0]
    if not module_name.endswith(".py"):
        if top in sys.stdlib_module_names:
            raise PluginError(f"{text}: {top} is a module of Python itself; name one of your own")
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise PluginError(f"{text}: expected module:name or file.py:name")
    relative = module_name if module_name.endswith(".py") else f"{_slashed(module_name)}.py"
    path = folder / relative
    if not module_name.endswith(".py") and _is_installed(top, folder):
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PluginError(f"{text}: leads out of {folder.resolve()}; put the file there")
    if not path.is_file():
        raise PluginError(
            f"{text}: no module {module_name!r} is installed, and there is no {path}; expected "
            "an importable module:name or file.py:name"
        )
    return path


def _slashed(module_name: str) -> str:
    return module_name.replace(".", "/")


def _is_installed(top: str, folder: Path) -> bool:
    """Whether Python finds a module elsewhere than in the folder or the working directory."""
    if top in _RUN:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    if spec.origin is None or top in ("dse", "hwmodels"):
        return spec.origin is not None
    found = Path(spec.origin).resolve()
    home = found.parent.parent if found.name == "__init__.py" else found.parent
    return home not in (folder.resolve(), Path.cwd())


def _of_file(path: Path) -> ModuleType:
    """The module of a file, run once as long as it is the same file."""
    name = path.stem
    for known in (name, other := f"_{name}_{zlib.crc32(bytes(path.resolve())):08x}"):
        if getattr(sys.modules.get(known), "__file__", None) == str(path.resolve()):
            return sys.modules[known]
    if name in sys.modules or name in sys.stdlib_module_names or importlib.util.find_spec(name):
        name = other
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Workers are told functions and classes by module and name: the module must be found again.
    sys.modules[name] = module
    _RUN.add(name)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
