"""YAML at the edge: the one place that reads and writes it.

A file that cannot be used ends in one message of the caller's error class, whatever is wrong
with it: bytes that are no text, text that is no YAML, a key that stands twice, an alias that
refers to itself or unfolds without bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from hwmodels.errors import nearest

SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 4 * 2**20
"""Size of a file that is still read: ten times a device with 10,000 measurements."""
DEEPEST = 64
"""Levels of nesting, aliases unfolded; a space has 7."""
LONG_LINE = 400
"""Characters of a line that is written by hand's rules; a figure with a citation has 200."""
MOST_NODES = 1_000_000
"""Values after aliases are unfolded: what a file of `MOST_BYTES` can hold without them."""

# libyaml parses the device files seven times as fast as Python does.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_TAGS = {_CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}
# What the constructors of scalars raise for a text that their tag does not fit (`!!int x`).
_UNFIT = (yaml.YAMLError, ValueError, LookupError, RecursionError)


class _Extent(NamedTuple):
    """A node's size with its aliases unfolded."""

    nodes: int
    depth: int


class _WrongNodeError(Exception):
    """A node that no file of ours has, and why."""

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(reason)
        self.line = node.start_mark.line + 1


def read_yaml(
    path: Path, error: type[Exception], *, what: str = "file", last_wins: bool = False
) -> object:
    """Content of a YAML file.

    Args:
        path: The file.
        error: Class of the error for a file that cannot be used.
        what: What the error calls the file: "space file".
        last_wins: Of a key that stands twice the last one counts, as in files of programs that
            read them so; else it is an error.

    Raises:
        Exception: `error`; the message has the file, and the line where there is one.
    """
    return parse_yaml(read_text(path, error, what=what), str(path), error, last_wins=last_wins)


def read_text(path: Path, error: type[Exception], *, what: str = "file") -> str:
    """Text of a regular file of at most `MOST_BYTES` bytes of UTF-8.

    Raises:
        Exception: `error`, for a file that is missing, too long or no text.
    """
    try:
        if not path.exists():
            raise error(f"{path}: no such {what}{_neighbours(path)}")
        if not path.is_file():
            raise error(f"{path}: expected a {what}, but it is not a regular file")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{path}: cannot be read as text: {problem}") from None
    if len(content) > MOST_BYTES:
        raise error(f"{path}: longer than {MOST_BYTES >> 20} MiB, which no {what} is")
    return text


def parse_yaml(
    text: str, origin: str, error: type[Exception], *, last_wins: bool = False
) -> object:
    """Content of a YAML text; `origin` names it in errors.

    Dates stay texts, as no field holds a date.

    Raises:
        Exception: `error`, for text that is no YAML or not sane; the message has the line.
    """
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Check(loader, last_wins=last_wins).extent(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except _WrongNodeError as problem:
        raise error(f"{origin}: line {problem.line}: {problem}") from None
    except _UNFIT as problem:
        raise error(f"{origin}:{_reason(problem, text)}") from None


def yaml_text(content: object, *, leaves_inline: bool = False) -> str:
    """Content as YAML that `parse_yaml` reads, keys in their order.

    With `leaves_inline` what holds no further mapping takes one line, as in files by hand.
    """
    if not leaves_inline:
        return yaml.safe_dump(content, sort_keys=False, width=100)
    text: str = yaml.dump(
        content, Dumper=_ByHand, sort_keys=False, width=LONG_LINE, default_flow_style=None
    )
    return text


def yaml_flow(content: Mapping[str, object]) -> str:
    """A mapping on one line, within its braces."""
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=True, width=MOST_BYTES)
    return text.strip()


class _ByHand(yaml.SafeDumper):
    """A writer that puts a figure, with its lists, on a line of its own."""


def _inline(dumper: yaml.SafeDumper, content: dict[str, object]) -> yaml.Node:
    lists = (value for value in content.values() if isinstance(value, list))
    nested = any(isinstance(item, dict) for found in lists for item in found)
    nested = nested or any(isinstance(value, dict) for value in content.values())
    return dumper.represent_mapping(_CORE + "map", content, flow_style=not nested)


_ByHand.add_representer(dict, _inline)


class _Check:
    """A walk over the nodes of a text, each once, that refuses what no file of ours holds."""

    def __init__(self, loader: yaml.SafeLoader, *, last_wins: bool) -> None:
        self._loader = loader
        self._last_wins = last_wins
        self._known: dict[int, _Extent] = {}
        self._open: set[int] = set()

    def extent(self, node: yaml.Node) -> _Extent:
        """Size of a node.

        Raises:
            _WrongNodeError: A node that refers to itself, is too deep or too much, has a tag
                that it does not fit, or a key that is no text or stands twice.
        """
        if id(node) in self._known:
            return self._known[id(node)]
        if id(node) in self._open:
            raise _WrongNodeError(node, "an alias refers to what holds it; write it out")
        if len(self._open) > DEEPEST:
            raise _WrongNodeError(node, f"nested deeper than {DEEPEST} levels")
        self._settle_tag(node)
        self._open.add(id(node))
        inner = [self.extent(one) for one in self._inner(node)]
        self._open.remove(id(node))
        found = _Extent(
            nodes=1 + sum(one.nodes for one in inner),
            depth=1 + max((one.depth for one in inner), default=0),
        )
        if found.nodes > MOST_NODES or found.depth > DEEPEST:
            raise _WrongNodeError(node, "its aliases unfold to more than any file holds")
        return self._known.setdefault(id(node), found)

    def _inner(self, node: yaml.Node) -> Iterator[yaml.Node]:
        if isinstance(node, yaml.SequenceNode):
            yield from node.value
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                self._check_key(key, seen)
                yield value

    def _check_key(self, key: yaml.Node, seen: set[str]) -> None:
        self._settle_tag(key)
        if key.tag not in (_CORE + "str", _CORE + "merge"):
            shown = f" {key.value}" if isinstance(key, yaml.ScalarNode) else ""
            raise _WrongNodeError(key, f"key{shown}: expected a text; put it in quotes")
        if key.value in seen and not self._last_wins:
            raise _WrongNodeError(key, f"key {key.value!r} stands twice; keep one")
        seen.add(key.value)

    def _settle_tag(self, node: yaml.Node) -> None:
        """Makes a date the text that it is, and refuses tags that the node does not fit."""
        shown = node.tag.replace(_CORE, "!!")
        if node.tag == _CORE + "timestamp":
            node.tag = _CORE + "str"
        elif node.tag not in _TAGS:
            raise _WrongNodeError(
                node, f"tag {shown}: expected plain texts, numbers, lists and mappings"
            )
        elif isinstance(node, yaml.ScalarNode) and node.tag != _CORE + "str":
            arguments = (yaml.ScalarNode, node.value, (True, False))
            plain = self._loader.resolve(*arguments)  # type: ignore[no-untyped-call]
            if node.tag != plain:
                raise _WrongNodeError(node, f"{node.value!r} does not fit its tag {shown}")


def _reason(problem: Exception, text: str) -> str:
    """Line and reason of what the parser or a constructor refused."""
    if isinstance(problem, yaml.reader.ReaderError):
        line = text.count("\n", 0, problem.position) + 1
        return f" line {line}: not YAML: character #x{_code(problem):04x} is not allowed"
    if isinstance(problem, RecursionError):
        return f" nested deeper than {DEEPEST} levels"
    mark = getattr(problem, "problem_mark", None)
    line_text = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
    reason = getattr(problem, "problem", None) or problem
    return f"{line_text} not YAML: {reason}"


def _code(problem: yaml.reader.ReaderError) -> int:
    """Code of a character, which libyaml gives as it is."""
    found = problem.character
    return found if isinstance(found, int) else ord(found)


def _neighbours(path: Path) -> str:
    """The nearest YAML file beside a missing one, or some that are there."""
    if not path.parent.is_dir():
        return ""
    names = [str(path.parent / one.name) for one in sorted(path.parent.glob("*.y*ml"))]
    hint = nearest(str(path), names)
    return hint or (f"; here are {', '.join(names[:5])}" if names else "")
