"""Annotations: the candidate and chosen formats that a model's metadata name.

`docs/annotations.md` is the specification that other programs write and read by.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import onnx

from dse.errors import GraphError, nearest
from dse.graph.assignment_json import stated
from dse.graph.ir.text_link import followed
from dse.graph.onnx.load import load
from dse.graph.onnx.order import bodies, name_nodes
from dse.graph.patterns.analysis import Analysis
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer

VERSION = 1
PREFIX = "dse."
VERSION_KEY, CANDIDATES, CHOSEN, TIES = (
    f"{PREFIX}{name}" for name in ("annotations", "candidates", "chosen", "ties")
)
KEYS = (VERSION_KEY, CANDIDATES, CHOSEN, TIES)
ALMOST = 0.85
"""Likeness from which a key is one of ours misspelt: other programs have keys of their own."""
TIE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""As the variables of a space are called."""

Formats = tuple[Quantizer | None, ...]
"""Candidates in their order; None is the model's own precision."""
Stated = TypeVar("Stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """Formats of tensors that a model's metadata name, by site key."""

    candidates: Mapping[str, Formats] = field(default_factory=dict)
    """Entries at one place of the lists of one kernel's operands go together; a list of one entry
    holds at every place."""
    chosen: Mapping[str, Quantizer] = field(default_factory=dict)
    """Tensors that are not named keep the model's precision."""
    ties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> sites whose kernels take one choice together."""


def read_annotations(path: Path) -> Annotations | None:
    """The annotations of an ONNX file; None where it has none.

    Raises:
        GraphError: As `annotations_of`, or the model cannot be read.
    """
    return annotations_of(Analysis(load(path)))


def annotations_of(analysis: Analysis) -> Annotations | None:
    """The annotations of a model that was loaded from a file; None where it has none.

    Raises:
        GraphError: Annotations of another version, keys, sites or formats that do not exist,
            JSON of another form, entries that contradict each other; all in one message, each
            as `<file>: <key>: <site>: <the problem>`.
    """
    path = analysis.graph.path
    if path is None:
        return None
    read = _Reader(path=path, analysis=analysis)
    found = read.annotations()
    if read.problems:
        raise GraphError("\n".join(f"{path}: {problem}" for problem in read.problems))
    return found


@dataclass(kw_only=True)
class _Reader:
    """One file's metadata, with everything that is wrong about them."""

    path: Path
    analysis: Analysis
    problems: list[str] = field(default_factory=list)

    def annotations(self) -> Annotations | None:
        """The annotations; of no meaning where there are problems."""
        model = onnx.load_model(followed(self.path), load_external_data=False)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        at_nodes = self._at_nodes(model)
        if not at_nodes and not entries.keys() & set(KEYS):
            self._spelling(entries)
            return None
        if not self._is_readable(entries, at_nodes):
            return None
        stated = {key: self._object(entries, key) for key in (CANDIDATES, CHOSEN, TIES)}
        found = Annotations(
            candidates=self._sites(CANDIDATES, stated[CANDIDATES], at_nodes, self._formats),
            chosen=self._sites(CHOSEN, stated[CHOSEN], at_nodes, self._quantizer),
            ties=self._ties(stated[TIES]),
        )
        self._chosen_are_candidates(found)
        return found

    def _spelling(self, entries: Mapping[str, str]) -> None:
        """Keys that are nearly ours: a misspelt annotation is not to pass for none."""
        for key in entries:
            if close := difflib.get_close_matches(key, KEYS, n=1, cutoff=ALMOST):
                self.problems.append(f"{key}: unknown key; did you mean {close[0]!r}?")

    def _is_readable(self, entries: Mapping[str, str], at_nodes: Mapping[str, object]) -> bool:
        version = entries.get(VERSION_KEY)
        if version == str(VERSION):
            self._spelling({key: "" for key in entries if key not in KEYS})
            return not self.problems
        if version is None:
            there = next((key for key in entries if key in KEYS), "") or next(iter(at_nodes), "")
            self.problems.append(
                f"{there}: without {VERSION_KEY}, which says the version; annotate the model "
                f"again, or set {VERSION_KEY} to {VERSION} (see docs/annotations.md)"
            )
        elif re.fullmatch(r"[1-9][0-9]*", version):
            self.problems.append(
                f"{VERSION_KEY}: version {version} is newer than {VERSION}, the newest that this "
                "dse reads; annotate the model again, or read it with a newer dse"
            )
        else:
            self.problems.append(f"{VERSION_KEY}: expected {VERSION}, got {version[:40]!r}")
        return False

    def _at_nodes(self, model: onnx.ModelProto) -> dict[str, dict[str, str]]:
        """Key -> site -> text, of what stands at the nodes themselves."""
        named = onnx.GraphProto()
        named.node.extend(model.graph.node)
        name_nodes(named)
        found: dict[str, dict[str, str]] = {}
        for node in named.node:
            for entry in node.metadata_props:
                key, _, operand = entry.key.rpartition(".")
                if key in (CANDIDATES, CHOSEN):
                    found.setdefault(key, {})[f"{node.name}/{operand}"] = entry.value
                elif entry.key.startswith(PREFIX):
                    known = [f"{CANDIDATES}.in0", f"{CHOSEN}.in0"]
                    self.problems.append(
                        f"{entry.key}: {node.name}: unknown key{nearest(entry.key, known)}"
                    )
        for node in (*_inner(model.graph), *(n for f in model.functions for n in f.node)):
            if any(entry.key.startswith(PREFIX) for entry in node.metadata_props):
                self.problems.append(
                    f"{PREFIX}*: {node.name or node.op_type}: stands at a node of a body or a "
                    f"function; name its site in the model's {CANDIDATES} or {CHOSEN}"
                )
        return found

    def _object(self, entries: Mapping[str, str], key: str) -> Mapping[str, object]:
        content = self._json(key, "", entries.get(key, "{}"))
        if isinstance(content, dict):
            return content
        if content is not None:
            self.problems.append(f"{key}: expected a JSON object, got {type(content).__name__}")
        return {}

    def _json(self, key: str, site: str, text: str) -> object:
        where = f"{key}: {site}" if site else key
        try:
            return json.loads(text)
        except ValueError as error:
            self.problems.append(f"{where}: not JSON: {error}")
        except RecursionError:
            self.problems.append(f"{where}: nested too deeply to be JSON of this form")
        return None

    def _sites(
        self,
        key: str,
        stated: Mapping[str, object],
        at_nodes: Mapping[str, Mapping[str, str]],
        read: Callable[[str, str, object], Stated | None],
    ) -> dict[str, Stated]:
        """The values of a key by site, from the model or the node; both must say the same."""
        found: dict[str, Stated] = {}
        for site, spec in stated.items():
            if self._is_site(key, site) and (value := read(key, site, spec)) is not None:
                found[site] = value
        for site, text in at_nodes.get(key, {}).items():
            spec = self._json(key, site, text) if self._is_site(key, site) else None
            value = None if spec is None else read(key, site, spec)
            if value is None:
                continue
            if site in found and found[site] != value:
                self.problems.append(
                    f"{key}: {site}: the model says {json.dumps(stated[site])}, the node {text}; "
                    "remove one of them"
                )
            found.setdefault(site, value)
        return found

    def _is_site(self, key: str, site: str) -> bool:
        known = self._known
        if site in known:
            return True
        self.problems.append(f"{key}: {site}: the model has no such site{nearest(site, known)}")
        return False

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.analysis.every_site)

    def _formats(self, key: str, site: str, spec: object) -> Formats | None:
        if not isinstance(spec, list) or not spec:
            self.problems.append(
                f"{key}: {site}: expected a list of formats, got {json.dumps(spec)[:60]}"
            )
            return None
        found = [None if one is None else self._quantizer(key, site, one) for one in spec]
        wrong = any(
            value is None and one is not None for value, one in zip(found, spec, strict=True)
        )
        return None if wrong else tuple(found)

    def _quantizer(self, key: str, site: str, spec: object) -> Quantizer | None:
        if not isinstance(spec, str | dict):
            self.problems.append(
                f"{key}: {site}: expected a format name or an object, got {json.dumps(spec)[:60]}"
            )
            return None
        try:
            return stated(site, spec, catalog.quantizer)
        except HardwareError as error:
            self.problems.append(f"{key}: {site}: {error}")
            return None

    def _ties(self, stated: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, sites in stated.items():
            if not TIE_NAME.fullmatch(name):
                self.problems.append(
                    f"{TIES}: {name!r}: expected a name of letters, digits, '_', '.' and '-'"
                )
            elif not isinstance(sites, list) or not all(isinstance(s, str) for s in sites):
                self.problems.append(f"{TIES}: {name}: expected a list of sites")
            else:
                found[name] = tuple(site for site in sites if self._is_site(TIES, site))
        return found

    def _chosen_are_candidates(self, found: Annotations) -> None:
        for site, quantizer in found.chosen.items():
            offered = found.candidates.get(site)
            if offered is not None and quantizer not in offered:
                names = ", ".join("null" if one is None else one.name for one in offered)
                self.problems.append(
                    f"{CHOSEN}: {site}: {quantizer.name} is none of its candidates ({names})"
                )


def _inner(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of all bodies."""
    for node in graph.node:
        for body in bodies(node):
            yield from body.node
            yield from _inner(body)
