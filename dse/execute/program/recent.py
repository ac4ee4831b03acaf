"""Tensors that are kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


class RecentTensors(Generic[Key]):
    """Tensors by key; the least recently used go first when the limit is reached.

    Several threads may use it at once.

    Args:
        limit_bytes: of all tensors together; a larger one is not kept at all.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._entries: OrderedDict[Key, Tensor] = OrderedDict()
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

    def get(self, key: Key) -> Tensor | None:
        """The tensor of a key, which is the most recently used from now on."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def keep(self, key: Key, tensor: Tensor) -> None:
        """Takes the tensor of a key that has none."""
        size = _bytes(tensor)
        with self._lock:
            if size > self.limit_bytes or key in self._entries:
                return
            self._entries[key] = tensor
            self._bytes += size
            while self._bytes > self.limit_bytes:
                _, old = self._entries.popitem(last=False)
                self._bytes -= _bytes(old)


def _bytes(tensor: Tensor) -> int:
    """Of the memory that a tensor holds on to, which may be larger than itself."""
    return tensor.untyped_storage().nbytes()
