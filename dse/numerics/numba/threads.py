"""Work shared by the threads that torch was given.

Compiled kernels release the GIL. The calling thread works too, and threads take one part after the
other, so that one that is held up leaves work to the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

ELEMENTS_PER_THREAD = 1 << 18
"""Below this a thread costs more than it saves."""
PARTS_PER_THREAD = 8

Result = TypeVar("Result")


def shared(items: int, elements: int, run: Callable[[int, int], Result]) -> list[Result]:
    """Results of `run(first, last)` over parts of `range(items)`, in no order."""
    threads = min(torch.get_num_threads(), elements // ELEMENTS_PER_THREAD, items)
    if threads <= 1:
        return [run(0, items)]
    parts = min(threads * PARTS_PER_THREAD, items)
    waiting = iter(range(parts))

    def work() -> list[Result]:
        return [run(items * i // parts, items * (i + 1) // parts) for i in waiting]

    others = [_pool(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
    results = work()
    for other in others:
        results += other.result()
    return results


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and starts its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"dse-{process}")
