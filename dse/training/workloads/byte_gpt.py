"""Text of Python's own library and the zoo's language model, at any width."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.training.workloads.workload import Batch, Units, seeded
from dse.zoo import held_out
from dse.zoo.data import windows
from dse.zoo.llama import Llama, LlamaConfig

HELD_OUT = 64
"""Windows of the report split that are evaluated."""
LEFT_OUT = ("test", "tests", "idlelib", "site-packages", "__pycache__", "turtledemo", "lib2to3")
"""Folders of the library that are no text of it, or are often not installed."""
LEAST = 2**20
"""Bytes that there must be to train on."""
FULL = LlamaConfig(vocabulary=256, width=256, layers=6, heads=8, kv_heads=4, ffn_width=512)
SMALL = LlamaConfig(vocabulary=256, width=64, layers=2, heads=4, kv_heads=2, ffn_width=128)
SMALLEST = LlamaConfig(vocabulary=256, width=64, layers=1, heads=2, kv_heads=1, ffn_width=128)
GPT_124M = LlamaConfig(
    vocabulary=50_257, width=768, layers=12, heads=12, kv_heads=12, ffn_width=2048, tied_head=True
)
"""The sizes of GPT-2 small, with a gated block of as many weights in place of its own. Bytes are
its tokens here, so that most rows of its table stay as they began."""


@dataclass(frozen=True, kw_only=True)
class ByteGpt:
    """Every module of the running Python's library but those that the zoo's splits hold out.

    The held-out text is the zoo's report split: whole modules and help topics.
    """

    name: str
    config: LlamaConfig = field(repr=False)
    steps: int
    rate: float
    sgd_rate: float = 0.5
    sequence: int = 128
    """Tokens of a window."""
    samples: int = 8
    """Windows of a step."""

    @cached_property
    def _files(self) -> Mapping[Path, bytes]:
        return library_files()

    @cached_property
    def _text(self) -> Tensor:
        data = numpy.frombuffer(b"".join(self._files.values()), dtype=numpy.uint8)
        return torch.from_numpy(data.astype(numpy.int64))

    @cached_property
    def origin(self) -> str:
        """Python's version and a digest of the text, which differs between versions."""
        digest = hashlib.sha256(self._text.numpy().tobytes()).hexdigest()[:12]
        return f"library of Python {sys.version_info.major}.{sys.version_info.minor}, {digest}"

    def model(self, seed: int) -> nn.Module:
        """The decoder of the zoo."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Llama(self.config)

    def batch(self, seed: int, step: int) -> Batch:
        """Windows at random places."""
        return random_windows(
            self._text, samples=self.samples, sequence=self.sequence, seed=seed, step=step
        )

    @cached_property
    def _units(self) -> Units:
        packages = [path.parts[0] if len(path.parts) > 1 else "" for path in self._files]
        _, groups = numpy.unique(packages, return_inverse=True)
        sizes = [len(content) for content in self._files.values()]
        return Units(groups=torch.from_numpy(groups), sizes=torch.tensor(sizes))

    def units(self) -> Units:
        """Files of the library by package; modules that are in none are one group."""
        return self._units

    def batch_of(self, units: Tensor, seed: int, step: int) -> Batch:
        """Windows at random places of some files, one behind the other.

        Raises:
            MethodError: they are no longer than a window.
        """
        sizes = self._units.sizes
        ends = sizes[units].cumsum(0)
        last = int(ends[-1]) - self.sequence - 1
        if last < 1:
            raise MethodError(
                f"rounds.split: a client has {int(ends[-1])} bytes of text, no more than a window "
                f"of {self.name}; expected fewer clients, or another split"
            )
        starts = torch.randint(last, (self.samples, 1), generator=seeded(seed, step))
        places = starts + torch.arange(self.sequence + 1)
        file = torch.searchsorted(ends, places, right=True)
        ours, whole = ends - sizes[units], sizes.cumsum(0) - sizes
        found = self._text[places - ours[file] + whole[units[file]]]
        return Batch(inputs=found[:, :-1], labels=found[:, 1:])

    def held_out(self) -> list[Batch]:
        """Windows that are spread evenly over the report split."""
        split = windows(held_out.REPORT, self.sequence)
        tokens, labels = (torch.from_numpy(one) for one in (split.inputs["tokens"], split.labels))
        rows = torch.arange(HELD_OUT) * len(tokens) // HELD_OUT
        return [
            Batch(inputs=tokens[part], labels=labels[part])
            for part in torch.split(rows, 2 * self.samples)
        ]


def random_windows(text: Tensor, *, samples: int, sequence: int, seed: int, step: int) -> Batch:
    """Windows of `text` (tokens) at random places, (samples, sequence), and the next tokens."""
    last = len(text) - sequence - 1
    starts = torch.randint(last, (samples, 1), generator=seeded(seed, step))
    found = text[starts + torch.arange(sequence + 1)]
    return Batch(inputs=found[:, :-1], labels=found[:, 1:])


def library_text() -> bytes:
    """Source text of the library, as `library_files`."""
    return b"".join(library_files().values())


def library_files() -> Mapping[Path, bytes]:
    """Source files of the library by their place in it, in the order of their names.

    Raises:
        MethodError: a Python without its library's source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    hidden = {name for split in held_out.SPLITS.values() for name in split.modules}
    found = {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*.py"))
        if not set(path.relative_to(folder).parts) & set(LEFT_OUT)
        and path.relative_to(folder).parts[0].removesuffix(".py") not in hidden
    }
    length = sum(len(content) for content in found.values())
    if length < LEAST:
        raise MethodError(
            f"byte-gpt trains on the source text of Python's library, and {folder} has "
            f"{length} bytes of it; take another workload"
        )
    return found
