"""Refusals of what a target cannot express, and the message that says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dse.errors import some

SHOWN_SITES = 3
"""Sites that a refusal names for each reason; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that a target cannot express."""

    reason: str
    instead: str
    """An alternative that would work there."""
    site: str = ""
    """The site; empty where it is the whole model."""
    format: str = ""
    """The quantizer that stands there."""


class Inexpressible(Exception):  # noqa: N818 (never seen by users: it becomes a `Refusal`)
    """A quantizer that a target has no way to say."""

    def __init__(self, reason: str, *, instead: str, site: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead
        self.site = site
        """The site that it is about, where that is another than the one being written."""


def refusal(target: str, refused: Iterable[Refusal]) -> str:
    """The message of a refused export: each reason once, with its sites and what would work."""
    sites: dict[tuple[str, str, str], list[str]] = {}
    for one in refused:
        sites.setdefault((one.format, one.reason, one.instead), []).append(one.site)
    lines = [f"{target} cannot express this assignment:"]
    for (format, reason, instead), keys in sites.items():
        named = [key for key in keys if key]
        where = f" at {some(named, SHOWN_SITES)}" if named else ""
        what = f"{format}{where}: " if named or format else ""
        lines.append(f"  {what}{reason}; {instead}")
    lines.append("nothing was written")
    return "\n".join(lines)
