"""Errors a user can cause in `hwmodels`.

HardwareError
├── UnknownFormatError  a format, scheme or quantizer name that the catalogue does not have
├── FormatError         a format or quantizer whose fields do not fit together
├── DeviceError         a device file: unknown key, missing figure, wrong unit
├── RuntimeModeError    a runtime file: unknown key, operand, device
├── MeasurementError    an operator table: missing column, unknown op, wrong shape
├── CircuitError        a circuit outside of what its model holds for: node, capacity, format
├── PluginError         code of another package that is named, but cannot be had
└── WorkError           work that cannot be priced: an op without the sizes it needs

`dse` has its own tree (`dse.errors`), which roots in `DseError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HardwareError(Exception):
    """The input is wrong; the message says where, what was expected, what came, what to do."""


class UnknownFormatError(HardwareError, KeyError):
    """No format, scheme or quantizer has that name."""

    def __str__(self) -> str:
        """The message as written (KeyError would quote it)."""
        return str(self.args[0]) if self.args else ""


class FormatError(HardwareError, ValueError):
    """The fields of a format or quantizer do not fit together."""


class DeviceError(HardwareError, ValueError):
    """The device file cannot be used."""


class RuntimeModeError(HardwareError, ValueError):
    """The runtime file cannot be used."""


class MeasurementError(HardwareError, ValueError):
    """The operator table cannot be used."""


class WorkError(HardwareError, ValueError):
    """The work cannot be priced."""


class CircuitError(HardwareError, ValueError):
    """No circuit model holds for what is asked."""


class PluginError(HardwareError, ValueError):
    """Code of other people's that is named, but cannot be had."""


def some(names: Iterable[str], most: int = 3) -> str:
    """`a, b, c and 4 more`: the first names of what may be hundreds, as a message lists them."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
