"""The room that a run of training needs, known before any is started: memory, and a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from dse.errors import RunError
from dse.explore.measure.workers import WORKER_BYTES
from dse.training.method import Method
from dse.training.workloads.workload import Batch, Workload, outputs_loss

KERNEL_BYTES = 2 * 10**8
"""Of a worker that rounds: compiled kernels. Measured: 0.07 to 0.12 GB, 0.25 GB where it is the
first to compile them."""
COPIES = 5
"""Numbers in 32 bits a parameter: the weight, its gradient, two moments and one on the way."""
CLIENT_COPIES = 3
"""The same of a client beside: its weights and moments."""
SAVED_FACTOR = 2.5
"""Memory of a step over what autograd saves of the network without rounding: rounded copies and
what one product needs while it runs. Measured: 1.8 (bf16) to 2.2 (quartet_ii) on byte-gpt."""
JUDGED_FACTOR = 1.5
"""The same of held-out samples, of which little is kept: their batches may be larger."""
META = torch.device("meta")


def check_device(device: str) -> None:
    """Holds the device of a run against this machine.

    Raises:
        RunError: a GPU that torch has not.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RunError("--compute cuda: torch finds no GPU here; leave it out")


def run_bytes(workload: Workload, methods: Iterable[Method], *, device: str = "cpu") -> int:
    """Bytes of main memory that a process takes which trains the hungriest of these methods.

    A network whose forward pass needs values counts by its parameters alone.

    Args:
        workload: Network and data; the network is made once.
        methods: Those whose clients are counted.
        device: Of torch's; on another one than `cpu` a process keeps its data and kernels here.
    """
    model = workload.model(0)
    parameters = sum(one.numel() * one.element_size() for one in model.parameters())
    rounds = [one.rounds for one in methods if one.rounds is not None]
    clients = max((one.clients for one in rounds), default=0)
    if device != "cpu":
        return WORKER_BYTES + KERNEL_BYTES + parameters
    model.to(META)
    step, judged = (
        saved_bytes(model, batch) for batch in (workload.batch(0, 0), workload.held_out()[0])
    )
    activations = int(max(SAVED_FACTOR * step, JUDGED_FACTOR * judged))
    copies = (COPIES + CLIENT_COPIES * clients) * parameters
    return WORKER_BYTES + KERNEL_BYTES + copies + activations


def saved_bytes(model: nn.Module, batch: Batch) -> int:
    """Bytes that autograd saves between the passes of a batch, parameters apart.

    Args:
        model: On torch's device `meta`, where nothing is computed.
        batch: Of any device.
    """
    known = {one.untyped_storage()._cdata for one in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x
        return x

    here = batch.to(META)
    with suppress(RuntimeError), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs_loss(model(here.inputs), here.labels)
    return sum(x.untyped_storage().nbytes() for key, x in kept.items() if key not in known)
