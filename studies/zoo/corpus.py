"""Prepares the training text of byte-gpt: `python studies/zoo/corpus.py BOOKS OUT [LIBRARY ...]`.

Reads the books (BOOKS/train-*.txt.xz, valid, test) and the standard library of the Python that
runs this script, plus what other versions' libraries (LIBRARY, their lib/pythonX.Y) add to it,
leaves out everything held out (`dse.zoo.held_out`), and writes xz files of plain text plus the
held-out texts, so that training elsewhere scores the same bytes.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from dse.zoo import held_out

# Modules watched during training and never trained on; no split of the zoo uses them.
VALIDATION = held_out.HeldOut(
    modules=("bdb", "cmd", "ftplib", "netrc", "sched", "zipapp"), topics=("comparisons", "del")
)
# Generated tables and build settings: bytes that teach nothing about text.
EXCLUDED_PARTS = ("site-packages", "pydoc_data", "__pycache__", "lib2to3/tests/data")
EXCLUDED_PREFIXES = ("encodings/cp", "encodings/iso", "encodings/mac", "_sysconfigdata")
LARGEST_TRAINING_FILE_BYTES = 400_000
# Lines shorter than this (`return None`, `import os`) repeat everywhere and prove no copying.
SHORTEST_TELLING_LINE = 30
LARGEST_SHARED_FRACTION = 0.05
# Another version's file joins if more than this part of its telling lines is new.
SMALLEST_NEW_FRACTION = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("libraries", type=Path, nargs="*")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    splits = {**held_out.SPLITS, "validation": VALIDATION}
    held = {name: held_out.texts(split) for name, split in splits.items()}
    held_texts = [text for texts in held.values() for text in texts.values()]
    library, tests, names = training_files(held_texts, arguments.libraries)
    books = b"".join(read_xz(path) for path in sorted(arguments.books.glob("train-*.txt.xz")))
    for name, text in {
        "books": books,
        "books_valid": read_xz(arguments.books / "valid.txt.xz"),
        "books_test": read_xz(arguments.books / "test.txt.xz"),
        "library": library,
        "tests": tests,
    }.items():
        (arguments.out / f"{name}.xz").write_bytes(lzma.compress(text, preset=6))
        print(f"{name}: {len(text):,} bytes")
    as_text = {split: {n: t.decode() for n, t in texts.items()} for split, texts in held.items()}
    (arguments.out / "held_out.json.xz").write_bytes(lzma.compress(json.dumps(as_text).encode()))
    (arguments.out / "trained_on.json").write_text(json.dumps(names, indent=0))


def read_xz(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def training_files(held: list[bytes], libraries: list[Path]) -> tuple[bytes, bytes, list[str]]:
    """Library text, test-suite text and the names of all texts in them."""
    held_lines = [telling_lines(text) for text in held]
    seen: set[bytes] = set()
    library: list[bytes] = []
    tests: list[bytes] = []
    names: list[str] = []
    for root in [Path(sysconfig.get_path("stdlib")), *libraries]:
        for name, text in candidates(root):
            lines = telling_lines(text)
            if root in libraries and len(lines - seen) <= SMALLEST_NEW_FRACTION * len(lines):
                continue
            if shared_too_much(lines, held_lines):
                print(f"left out, shares text with the held-out texts: {root.name}/{name}")
                continue
            seen |= lines
            names.append(f"{root.name}/{name}")
            (tests if is_test(name) else library).append(text)
    return b"\n".join(library), b"\n".join(tests), names


def candidates(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and text of every file and topic whose name is not held out."""
    splits = [*held_out.SPLITS.values(), VALIDATION]
    modules = {name for split in splits for name in split.modules}
    held_topics = {name for split in splits for name in split.topics}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not excluded(name, modules) and path.stat().st_size <= LARGEST_TRAINING_FILE_BYTES:
            yield name, path.read_bytes()
    for name, text in sorted(library_topics(root).items()):
        if name not in held_topics:
            yield f"topic:{name}", text.encode()


def library_topics(root: Path) -> dict[str, str]:
    namespace: dict[str, dict[str, str]] = {}
    exec((root / "pydoc_data" / "topics.py").read_bytes(), namespace)  # Python's own file.
    return namespace["topics"]


def excluded(name: str, modules: set[str]) -> bool:
    """Whether a library file is a table, or a held-out module, or a test of one."""
    if any(part in name for part in EXCLUDED_PARTS) or name.startswith(EXCLUDED_PREFIXES):
        return True
    words = [part.removesuffix(".py") for part in name.split("/")]
    return any(word in modules or tested_module(word, modules) for word in words)


def tested_module(word: str, modules: set[str]) -> bool:
    return word.startswith("test") and any(module in word for module in modules)


def is_test(name: str) -> bool:
    return "test" in name.split("/", maxsplit=1)[0] or "/test" in name


def telling_lines(text: bytes) -> set[bytes]:
    lines = (line.strip() for line in text.splitlines())
    return {line for line in lines if len(line) >= SHORTEST_TELLING_LINE}


def shared_too_much(lines: set[bytes], held: Iterable[set[bytes]]) -> bool:
    """Whether the shared lines are more than a few percent of either text."""
    for other in held:
        shared = len(lines & other)
        smaller = min(len(lines), len(other))
        if shared > 2 and shared > LARGEST_SHARED_FRACTION * smaller:
            return True
    return False


if __name__ == "__main__":
    main()
