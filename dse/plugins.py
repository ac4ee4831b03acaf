"""Objects that a file names: `module:name`, installed or in a file beside it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hwmodels.errors import PluginError


def named_object(text: str, folder: Path) -> object:
    """The object that `module:name` says: of an installed module, or of a file in a folder.

    A file beside what names it is not put on the module path: it shadows nothing.

    Args:
        text: `module:name`; the module may be dotted.
        folder: where `module.py` is looked for when no such module is installed.

    Raises:
        PluginError: no such module or name, or the module cannot be run.
    """
    module_name, _, name = text.partition(":")
    try:
        return getattr(_module(module_name, folder), name)
    except Exception as error:  # what a module runs when it is imported may raise anything
        raise PluginError(f"{text}: {error}; expected an importable module:name") from error


def _module(name: str, folder: Path) -> ModuleType:
    path = folder / f"{name.replace('.', '/')}.py"
    if name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is not None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ImportError(f"no module {name!r} is installed, and there is no {path}")
    module = importlib.util.module_from_spec(spec)
    # Workers are told functions and classes by module and name: the module must be found again.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
