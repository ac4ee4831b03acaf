"""Writes what `docs/cuda.md` shows: schemes and weight methods on the CPU and on a GPU.

Run: python -m tests.cuda.table [-o docs/cuda.md]
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from dse.graph.ir.assignment import Assignment
from hwmodels.formats.catalog import SCHEMES
from tests.cuda.networks import METHODS, NETWORKS, Network, network, outcome

HEAD = """# The same numbers on a GPU

Every scheme, and every weight method, on three small networks with random weights (see
`tests/cuda/networks.py`): once on the CPU, once on {device}
(PyTorch {torch}, Python {python}). Written by `python -m tests.cuda.table`; the tests are
`python -m pytest tests/cuda`.

*Equal weights* is the share of quantized weights with the same bits. Sums over activations are
taken in another order on a GPU, so outputs differ by rounding, and a value near the middle of two
steps can take the other one. *Difference* is how far the quantized outputs of both are apart, as
a share of what quantizing did to them (norms). Losses are in nats.

| network | scheme | weights | equal weights | difference | loss on the CPU | on the GPU |
|---|---|---|---|---|---|---|
"""


def _cases() -> Iterator[tuple[str, str, str, str]]:
    """(network, scheme, what is done about weights, words that say so)."""
    for name in NETWORKS:
        yield from ((name, scheme, "as the scheme says", "") for scheme in SCHEMES)
    for scheme in ("w4a16", "w8a8_int8", "w4a4_nvfp4"):
        for method, words in METHODS.items():
            if "mse" not in method or scheme == "w4a16":
                yield "convolutional", scheme, method, words


def _quantized(net: Network, chosen: Assignment, device: str) -> Iterator[torch.Tensor]:
    """Every weight as it stands on a device."""
    evaluator = net.evaluator(chosen, device)
    for key, emulate in evaluator.emulators(chosen).items():
        if evaluator.sites[key].role == "weight":
            value = evaluator.program.constant(evaluator.sites[key].value)
            assert value is not None
            yield emulate(value.to(device)).cpu().flatten()


def _row(name: str, scheme: str, method: str, words: str, device: str) -> str:
    net = network(name)
    chosen = net.assignment(f"{scheme}:{words}" if words else scheme)
    here, there = outcome(net, chosen, "cpu"), outcome(net, chosen, device)
    weights = [torch.cat(list(_quantized(net, chosen, place))) for place in ("cpu", device)]
    equal = float((weights[0] == weights[1]).float().mean())
    shown = "all" if equal == 1 else f"{equal:.2%}"
    return (
        f"| {name} | `{scheme}` | {method} | {shown} | {there.difference(here):.1e} "
        f"| {here.loss:.3e} | {there.loss:.3e} |"
    )


def main() -> None:
    """Prints the page, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--device", default="cuda")
    chosen = parser.parse_args()
    named = torch.cuda.get_device_name() if chosen.device == "cuda" else chosen.device
    rows = [_row(*case, device=chosen.device) for case in _cases()]
    head = HEAD.format(device=named, torch=torch.__version__, python=platform.python_version())
    page = head + "\n".join(rows) + "\n"
    if chosen.output is None:
        print(page, end="")
    else:
        chosen.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
