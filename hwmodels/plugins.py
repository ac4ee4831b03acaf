"""Entry points of installed packages: what they bring to a seam, and who brings it.

A group is a seam (`dse.devices`, `dse.exporters`, ...), a name is what people write.
Reading the installed packages takes 30 ms: whoever has the shipped member of that name need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from hwmodels.errors import PluginError


def plugin_points(group: str) -> Sequence[EntryPoint]:
    """The entry points of a group, by name; one that two folders of the path repeat is one."""
    found = {(point.name, point.value): point for point in entry_points(group=group)}
    return [found[key] for key in sorted(found)]


def plugin_names(group: str) -> Sequence[str]:
    """Names that installed packages register in a group, sorted."""
    return list(dict.fromkeys(point.name for point in plugin_points(group)))


def plugin(group: str, name: str) -> object:
    """The object that an installed package registers under a name.

    Raises:
        PluginError: there is none, two packages register it, or it cannot be imported.
    """
    found = {point.value: point for point in plugin_points(group) if point.name == name}
    if len(found) != 1:
        given = f"{len(found)} packages register it: {', '.join(found)}; uninstall one of them"
        raise PluginError(f"entry point {group}: {name}: {given if found else 'unknown'}")
    (point,) = found.values()
    try:
        return point.load()
    except Exception as error:  # whatever another package's import raises
        raise PluginError(f"entry point {group}: {name} = {point.value}: {error}") from error


def owner(point: EntryPoint) -> str:
    """The package of an entry point, in words."""
    return f"package {point.dist.name}" if point.dist else "an unknown package"
