"""The zoo's error, a leaf of the tree in `dse.errors`."""

from __future__ import annotations

from dse.errors import DseError


class ZooError(DseError, KeyError):
    """No such model, or a model whose package or data is missing."""

    def __str__(self) -> str:
        """The message itself; a KeyError would show it in quotes."""
        return str(self.args[0]) if self.args else ""
