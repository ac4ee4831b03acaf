"""Errors a user can cause through `hwmodels`.

HardwareError
├── DeviceError       a device file: unknown name or key, missing or absurd figure
├── RuntimeFileError  a runtime file: unknown name, key, format
├── TableError        an operator table: columns, units, duplicate rows
└── WorkError         work that cannot be priced: an op without the sizes it needs
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HardwareError(Exception):
    """The input is wrong; the message says where, what was expected, what came, what to do."""


class DeviceError(HardwareError, ValueError):
    """The device file cannot be used."""


class RuntimeFileError(HardwareError, ValueError):
    """The runtime file cannot be used."""


class TableError(HardwareError, ValueError):
    """The operator table cannot be used."""


class WorkError(HardwareError, ValueError):
    """The work cannot be priced."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
