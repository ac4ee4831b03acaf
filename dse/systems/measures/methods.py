"""Methods of training as a claim names them: shipped ones, or what differs from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.errors import StudyError
from dse.training.load import FOLDER, load_method, method_of
from dse.training.method import Method
from hwmodels.yaml_file import read_yaml

MethodGiven = str | dict[str, Any]
"""A shipped method's name, or a mapping as in a method file; `base` names a shipped one that it
changes: mappings are merged, everything else is replaced."""


def given_method(given: MethodGiven) -> Method:
    """The method that a claim names.

    Raises:
        MethodError: there is none, or it does not fit together.
    """
    if isinstance(given, str):
        return load_method(given)
    changes = dict(given)
    base = changes.pop("base", None)
    if base is None:
        return method_of({"source": "a claim of a system", **changes}, origin="method")
    load_method(str(base))  # names the nearest where there is none
    content = read_yaml(FOLDER / f"{base}.yaml", StudyError, what="method file")
    assert isinstance(content, dict), "a shipped method is a mapping"
    return method_of(_merged(content, changes), origin=f"method on {base}")


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found
