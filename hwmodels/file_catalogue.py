"""Catalogues of YAML files by name: those shipped here, and those of other packages.

A package of somebody else brings devices or runtimes with an entry point in the group
`dse.devices` or `dse.runtimes`, whose value is a package (a folder) that holds the YAML files::

    [project.entry-points."dse.devices"]
    acme = "acme_chips.devices"
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from hwmodels.errors import HardwareError, nearest
from hwmodels.plugins import owner, plugin_points
from hwmodels.yaml_file import SUFFIXES


class Named(Protocol):
    """A thing that a file describes, under a name."""

    @property
    def name(self) -> str:
        """By which its measurements are known."""


Loaded = TypeVar("Loaded", bound=Named)
LOGGER = logging.getLogger(__name__)
LONGEST_NAME = 60
"""Characters of an unknown name that an error shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCatalogue(Generic[Loaded]):
    """The named YAML files of one kind; each is read once a process."""

    kind: str
    """Noun for one file in errors: device, runtime."""
    folder: Path
    """The shipped files; a file's stem is its name."""
    group: str
    """Entry points of packages that bring more files."""
    error: type[HardwareError]
    read: Callable[[Path], Loaded]
    essence: Callable[[Loaded], object]
    """Of what a file describes, all that its measurements depend on."""

    def names(self) -> tuple[str, ...]:
        """Names of all files, sorted.

        Raises:
            HardwareError: `error`, as `load` for a package that brings a wrong folder.
        """
        return tuple(sorted((*_stems(self.folder), *_brought(self))))

    def load(self, name_or_path: str | Path) -> Loaded:
        """The file of that name, read once, or the file at that path, read anew.

        Raises:
            HardwareError: `error`, for a name that nobody brings, a package that brings no
                folder or a name twice, or what `read` refuses.
        """
        if Path(name_or_path).suffix in SUFFIXES:
            found = self.read(Path(name_or_path))
            self._tell_apart(found, Path(name_or_path))
            return found
        path = self.path(str(name_or_path))
        loaded: Loaded = _read_once(self, path)
        return loaded

    def _tell_apart(self, found: Loaded, path: Path) -> None:
        """Warns of a file that is another thing under a known name.

        Measurements, fitted corrections and intervals are looked up by name.
        """
        if found.name not in _stems(self.folder):
            return
        if self.essence(found) != self.essence(_read_once(self, self.path(found.name))):
            _warn_once(
                f"{path}: name: {found.name} is a known {self.kind}, from which this file "
                "differs: what was measured of that one is taken to be of this one. Give it a "
                "name of its own if it is another"
            )

    def path(self, name: str) -> Path:
        """The file of a name.

        Raises:
            HardwareError: `error`, as `load`.
        """
        # A shipped name opens without a look at the installed packages, which takes 30 ms.
        if name in _stems(self.folder):
            return _stems(self.folder)[name]
        brought = _brought(self)
        if name not in brought:
            known = self.names()
            shown = f"{name[:LONGEST_NAME]}..." if len(name) > LONGEST_NAME else name
            raise self.error(
                f"unknown {self.kind} {shown!r}{nearest(shown, known) or '.'} Known: "
                f"{', '.join(known)}; "
                f"or give the path of a {self.kind} file (.yaml)"
            )
        return brought[name]


@cache
def _warn_once(text: str) -> None:
    """A command reads a file several times."""
    LOGGER.warning(text)


@cache
def _read_once(catalogue: FileCatalogue[Loaded], path: Path) -> Loaded:
    return catalogue.read(path)


@cache
def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@cache
def _brought(catalogue: FileCatalogue[Loaded]) -> dict[str, Path]:
    """Files of other packages by name."""
    found: dict[str, Path] = {}
    shipped = _stems(catalogue.folder)
    for point in plugin_points(catalogue.group):
        for name, path in _stems(_folder(catalogue, point)).items():
            other = shipped.get(name) or found.get(name)
            if other is not None:
                raise catalogue.error(
                    f"{path}: {catalogue.kind} {name!r} of {owner(point)} has the name of "
                    f"{other}; rename the file, or uninstall the package"
                )
            found[name] = path
    return found


def _folder(catalogue: FileCatalogue[Loaded], point: EntryPoint) -> Path:
    """Folder of the package that an entry point names; the package is not run."""
    try:
        spec = find_spec(point.value)
    except (ImportError, ValueError) as problem:
        raise _wrong(catalogue, point, str(problem)) from None
    if spec is None or not spec.submodule_search_locations:
        raise _wrong(catalogue, point, "no such package")
    return Path(next(iter(spec.submodule_search_locations)))


def _wrong(catalogue: FileCatalogue[Loaded], point: EntryPoint, why: str) -> HardwareError:
    return catalogue.error(
        f"entry point {point.name} = {point.value} of {owner(point)} in group {point.group}: "
        f"{why}; expected a package whose folder holds {catalogue.kind} files (.yaml)"
    )
