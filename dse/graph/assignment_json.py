"""Assignments as JSON: `{"model": digest, "default": "bf16", "sites": {...}}`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from dse.errors import AssignmentError, nearest
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import SUM
from dse.graph.patterns.analysis import Analysis
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import SumQuantizer, sum_quantizer
from hwmodels.formats.names import quantizer_object
from hwmodels.formats.quantizer import Quantizer

DEFAULTS = ("bf16", "fp16", "fp32")
"""The network's own precision, which sites that are not named keep."""
FIELDS = ("model", "default", "sites")
ACCOMPANYING = ("$schema", "recipe")
"""The other fields of an exported recipe; an assignment is read without it."""

Lookup = Callable[[str | Mapping[str, object]], Quantizer]
"""A format name or a quantizer object as a quantizer; `HardwareError` where it is neither."""


def to_json(
    assignment: Assignment, graph: Graph, *, default: str = DEFAULTS[0]
) -> dict[str, object]:
    """The JSON object of an assignment: quantizers by name where the catalogue knows them."""
    return {
        "model": graph.digest,
        "default": default,
        "sites": {key: quantizer_spec(quantizer) for key, quantizer in assignment},
    }


def from_json(
    text: str, graph: Graph, lookup: Lookup, *, origin: str = "assignment"
) -> Assignment:
    """The assignment of a JSON text; `lookup` turns a format name or object into a quantizer.

    An empty or missing `model` fits every graph. Errors begin with `origin`, the file if any.

    Raises:
        AssignmentError: Not such a JSON object, another model's digest, a site that the graph
            does not have, a format that `lookup` refuses; all problems in one message.
    """
    content = _object(text, origin)
    problems = [
        f"unknown field {name!r}{nearest(name, FIELDS)}"
        for name in content
        if name not in FIELDS + ACCOMPANYING
    ]
    model = content.get("model", "")
    if model and model != graph.digest:
        problems.append(
            f"model: made for the model with digest {str(model)[:16]}..., but this one is "
            f"{graph.digest[:16]}...; use the model that it was made for, or remove 'model'"
        )
    default = content.get("default", DEFAULTS[0])
    if default not in DEFAULTS:
        problems.append(
            f"default: must be one of {', '.join(DEFAULTS)}, got {default!r}; name every other "
            "site under 'sites'"
        )
    listed = content.get("sites", {})
    if not isinstance(listed, dict):
        problems.append(f"sites: must be an object, got {type(listed).__name__}")
        listed = {}
    found = _quantizers(listed, _known(graph), lookup, problems)
    if problems:
        raise AssignmentError(f"{origin}: " + "; ".join(problems))
    return Assignment.of(found)


def _object(text: str, origin: str) -> Mapping[str, object]:
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits; 10,000 brackets
        raise AssignmentError(f"{origin}: not JSON: {error}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise AssignmentError(f"{origin}: expected an object with {FIELDS}, got {kind}")
    return content


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys stand in it once: of two formats for a site one would be dropped."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} stands in one object twice; keep one")
    return found


def _known(graph: Graph) -> frozenset[str]:
    return frozenset(Analysis(graph).every_site)


def _quantizers(
    listed: Mapping[str, object],
    known: Iterable[str],
    lookup: Lookup,
    problems: list[str],
) -> dict[str, Quantizer]:
    """The quantizers of known sites; adds what is wrong to `problems`."""
    found: dict[str, Quantizer] = {}
    for key, spec in listed.items():
        if key not in known:
            problems.append(f"sites: the model has no site {key!r}{nearest(key, known)}")
            continue
        if not isinstance(spec, str | Mapping):
            problems.append(f"sites: {key}: expected a format name or an object, got {spec!r}")
            continue
        try:
            found[key] = stated(key, spec, lookup)
        except HardwareError as error:
            problems.append(f"sites: {key}: {error}")
    return found


def stated(key: str, spec: str | Mapping[str, object], lookup: Lookup) -> Quantizer:
    """The meaning of a name or an object at a site: an accumulator at a sum, else a quantizer.

    Raises:
        HardwareError: It is neither.
    """
    return sum_quantizer(spec) if key.endswith(f"/{SUM}") else lookup(spec)


def quantizer_spec(quantizer: Quantizer) -> str | dict[str, object]:
    """The quantizer's name if that says all, else an object."""
    if isinstance(quantizer, SumQuantizer):
        return quantizer.name
    try:
        if catalog.quantizer(quantizer.name) == quantizer:
            return quantizer.name
    except HardwareError:
        pass  # a format of the user's own: the object says it in full
    return quantizer_object(quantizer)
