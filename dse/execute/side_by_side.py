"""Work of equal size on several threads, each with one of torch's.

A small network's steps are too short to be shared: threads that meet at the end of each step wait
longer than they work, above all where other programs want the processors, too. Whole forwards are
long enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

BUSY = 0.8
"""The least share of the threads' time that must find work."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> list[Result]:
    """The results of items in their order, `threads` at a time; one by one where too few are."""
    given = list(items)
    if threads < 2 or not given or len(given) < BUSY * threads * -(-len(given) // threads):
        return [work(item) for item in given]
    whole = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, given))
    finally:
        torch.set_num_threads(whole)  # what threads that begin later get, too
