"""YAML at the edge: whatever a file holds, one message of the caller's error class."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hwmodels import yaml_file
from hwmodels.yaml_file import MOST_BYTES, parse_yaml, read_yaml, yaml_text


class WrongError(Exception):
    """What these tests ask for."""


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "flow": ("a: [1, 2\nb: 3", r"line \d+, column \d+: not YAML"),
    "deep": ("[" * 500 + "]" * 500, "nested deeper"),
    "deeper": ("[" * 20_000 + "]" * 20_000, "nest"),
    "itself": ("&a [*a]", "line 1: an alias refers to what holds it"),
    "laughs": (LAUGHS, "its aliases unfold to more"),
    "twice": ("a: 1\nb: 2\na: 3", "line 3: key 'a' stands twice"),
    "twice inside": ("a: {b: 1, b: 1}", "line 1: key 'b' stands twice"),
    "null key": ("~: 1", "line 1: key ~: expected a text"),
    "number key": ("a: {4: 1}", "line 1: key 4: expected a text"),
    "list key": ("? [1]\n: 2", "line 1: key: expected a text"),
    "python": ("a: !!python/object/apply:os.getcwd []", "line 1: tag"),
    "own tag": ("a: !mine 3", "line 1: tag !mine"),
    "no int": ("b: 1\na: !!int x", "line 2: 'x' does not fit its tag !!int"),
    "no float": ("a: !!float x", "line 1: 'x' does not fit its tag !!float"),
    "no bool": ("a: !!bool 7", "line 1: '7' does not fit its tag !!bool"),
    "no date": ("a: !!set {b}", "line 1: tag !!set"),
    "digits": ("a: " + "1" * 5000, "not YAML: "),
    "merge": ("<<: 5\na: 1", "line 1, column 5: not YAML"),
    "unknown alias": ("a: *b", "line 1, column 4: not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML"),
    "bell": ("a: 1\nb: \x07", "line 2: not YAML: character #x0007"),
}


@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", None)])
@pytest.mark.parametrize(("text", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_one_message_with_and_without_libyaml(
    monkeypatch: pytest.MonkeyPatch, loader: type | None, text: str, says: str
) -> None:
    if loader is None:
        pytest.skip("no libyaml here")
    monkeypatch.setattr(yaml_file, "_LOADER", loader)
    with pytest.raises(WrongError, match=says) as raised:
        parse_yaml(text, "x.yaml", WrongError)
    assert str(raised.value).startswith("x.yaml:")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "a: 1", "a: [1, 2.5, yes, ~, x]", "a: &b {c: 1}\nd: {<<: *b, e: 2}", "a: 'é'"]
)
def test_sound_text_reads_as_other_readers_read_it(text: str) -> None:
    assert parse_yaml(text, "x", WrongError) == yaml.safe_load(text)


def test_a_date_stays_a_text() -> None:
    assert parse_yaml("version: 2026-01-31", "x", WrongError) == {"version": "2026-01-31"}


def test_what_is_written_reads_back() -> None:
    content = {"b": [1, 2.5, None, True, "é: x"], "a": {"c": "2026-01-31", "d": "yes"}}
    assert parse_yaml(yaml_text(content), "x", WrongError) == content
    assert list(parse_yaml(yaml_text(content), "x", WrongError)) == ["b", "a"]  # type: ignore[call-overload]


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path, WrongError) == {"a": 1}


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "utf16.yaml").write_text("a: 1", encoding="utf-16")
    (tmp_path / "long.yaml").write_bytes(b"#" * (MOST_BYTES + 1))
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, says in (
        ("utf16.yaml", "cannot be read as text"),
        ("long.yaml", "longer than 4 MiB"),
        ("folder.yaml", "not a regular file"),
        ("pipe.yaml", "not a regular file"),
        ("utf18.yaml", r"no such file; did you mean '.*utf16\.yaml'"),
        ("a\0b.yaml", "no such file|cannot be read"),
        ("a" * 300 + ".yaml", "no such file|cannot be read"),
    ):
        with pytest.raises(WrongError, match=says):
            read_yaml(tmp_path / name, WrongError)


def test_an_endless_device_is_not_read() -> None:
    with pytest.raises(WrongError, match="not a regular file"):
        read_yaml(Path("/dev/zero"), WrongError)
