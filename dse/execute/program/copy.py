"""Copies of constants that stay on the host, made while the device computes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def copied(x: Tensor, device: torch.device) -> Tensor:
    """X on a device; itself where it is there already.

    On CUDA a stream of its own takes the copy, so that it waits for no kernel that was launched
    before it: the host is ahead of the device by what it has launched, and copies meanwhile.
    """
    if x.device.type == device.type:
        return x
    if device.type != "cuda":
        return x.to(device)
    side, here = _stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(side):
        there = x.to(device, non_blocking=True)
    here.wait_stream(side)
    there.record_stream(here)  # its memory is not another copy's before the kernels have read it
    return there


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
