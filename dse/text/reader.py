"""Text files as samples of a model: tokenized, packed to sequences of one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dse.errors import DataError
from dse.text.documents import Record, documents
from dse.text.tokenizer import Tokenizer
from dse.zoo.split import Split

SURPLUS = 16
"""Reading ends once there are so many times the samples that are asked for."""
TOKENS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """A language model's needs in order to read text."""

    tokenizer: Tokenizer
    context: int | None
    """Positions that the model was built for; None where it does not say."""
    causal: bool
    """Whether it predicts the next token."""

    def read(self, path: Path, *, samples: int, sequence: int, inputs: Iterable[str]) -> Split:
        """Samples (samples, sequence) of a text file, the document order kept.

        Documents follow each other, each ended by the end-of-text token, and are cut into
        windows; of a causal model the labels are the next tokens.

        Raises:
            DataError: The file cannot be read, gives no sample, the sequence is longer than the
                model's context, or the graph has inputs that text does not give.
        """
        self.check_length(sequence, f"{path}: data.sequence")
        names = tuple(inputs)
        if set(names) - {TOKENS, MASK, TYPES} or TOKENS not in names:
            raise DataError(
                f"{path}: text feeds {TOKENS}, {MASK} and {TYPES}; the graph takes "
                f"{', '.join(names)}; give an .npz with an array for each"
            )
        packed = self._packed(documents(path), SURPLUS * samples * sequence + 1)
        windows = (len(packed) - 1) // sequence
        if windows < 1:
            raise DataError(
                f"{path}: {len(packed)} tokens are fewer than one sample of {sequence}"
            )
        used = packed[: windows * sequence + 1]
        tokens = used[:-1].reshape(windows, sequence)
        given = {TOKENS: tokens, MASK: np.ones_like(tokens), TYPES: np.zeros_like(tokens)}
        return Split(
            inputs={name: given[name] for name in names},
            labels=used[1:].reshape(windows, sequence) if self.causal else None,
            kind="tokens",
        )

    def check_length(self, length: int, where: str) -> None:
        """Raises `DataError` where a sequence is longer than the model's context."""
        if self.context is not None and length > self.context:
            raise DataError(
                f"{where}: {length} tokens, but {self.tokenizer.folder.name} has a context of "
                f"{self.context} (config.json); give shorter sequences"
            )

    def ids(self, record: Record) -> list[int]:
        """The tokens of a document."""
        if "messages" in record:
            return self.tokenizer.chat(record["messages"])
        return self.tokenizer.encode(record["text"])

    def _packed(self, records: Iterable[Record], limit: int) -> NDArray[np.int64]:
        """The tokens of documents in one row; at least `limit` of them where there are so many."""
        parts: list[NDArray[np.int64]] = []
        count = 0
        for ids in self._ended(records):
            parts.append(np.asarray(ids, dtype=np.int64))
            count += len(ids)
            if count >= limit:
                break
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _ended(self, records: Iterable[Record]) -> Iterator[list[int]]:
        end = self.tokenizer.id_of("eos_token") if self.causal else None
        for record in records:
            ids = self.ids(record)
            yield ids if end is None or (ids and ids[-1] == end) else [*ids, end]
