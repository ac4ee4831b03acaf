"""`dse predict --training`: what a step of methods costs on devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from dse.cli.dims import bound
from dse.cli.screen import Rows, Screen, Value
from dse.report.quantities.unit import si

if TYPE_CHECKING:
    from dse.training.price import StepCost

RUNTIME = "free"
"""The runtime where nobody names one: those of the catalogue list kernels of inference."""
SHOWN = ("fprop", "dgrad", "wgrad", "attention", "update")
HELD = "weights, their copies, gradients, moments and activations"
ASSUMED = (
    "one GPU, one part after the other; products with a weight are done three times, attention's "
    "backward pass is 2.5 and that of other operators 1.5 times the forward pass, weights are "
    "written by the update, and kept beside the master weights, in the formats that products read "
    "(one copy of 16 bits for both passes; narrower ones along either sum, without the 16-bit "
    "copy that some frameworks keep beside them: 2 bytes a parameter more), rotations hide behind "
    "the rounding, the gradients' norm behind their products; gradients of the master weights' "
    "size, no recomputation, no collectives; not compared with a measured step"
)


def say_steps(
    screen: Screen,
    model: str,
    devices: Sequence[str],
    methods: Sequence[str],
    *,
    dims: Mapping[str, int],
    runtime: str | None,
    as_json: bool,
) -> None:
    """Print a row a device and method, bf16 first."""
    from dse.evaluate.phases import phase_work  # noqa: PLC0415
    from dse.graph.onnx.rank import ranks_in  # noqa: PLC0415
    from dse.graph.patterns.analysis import Analysis  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.training.load import REFERENCE, load_method, method_name  # noqa: PLC0415
    from dse.training.price import left_out, step_cost  # noqa: PLC0415
    from hwmodels.runtimes.platform import load_platform  # noqa: PLC0415
    from hwmodels.tables.room import beyond_main_memory  # noqa: PLC0415

    chosen = {REFERENCE: load_method(REFERENCE)}
    chosen |= {method_name(one): load_method(one) for one in methods}
    graph = open_model(model, ranks=ranks_in(dims)).graph
    work = phase_work(Analysis(graph), bound(graph, dims), 1)
    platforms = [load_platform(one, runtime=runtime or RUNTIME) for one in devices]
    found = [
        (one.device.name, one.runtime.name, name, step_cost(work, method, one))
        for one in platforms
        for name, method in chosen.items()
    ]
    by_name = {one.device.name: one.device for one in platforms}
    lacking = [
        [*beyond_main_memory(cost.memory.total, HELD, by_name[device], name)]
        for device, _, name, cost in found
    ]
    if as_json:
        screen.json(
            [
                _record(*one) | {"left_out": [*left_out(chosen[one[2]])], "lacks": lines}
                for one, lines in zip(found, lacking, strict=True)
            ]
        )
        return
    base = {device: cost.latency_s for device, _, name, cost in found if name == REFERENCE}
    screen.table(
        Rows(
            columns=("device", "method", "speed-up", "latency_s", "interval", "energy_j",
                     *(f"{name}_s" for name in SHOWN), "other_s", "memory_bytes", "status"),
            rows=tuple(
                (device, name, f"{base[device] / cost.latency_s:.2f} x", *_row(cost))
                for device, _, name, cost in found
            ),
        )
    )  # fmt: skip
    for device, runtime_name, name, cost in found:
        notes = dict.fromkeys(part.note for part in cost.parts.values() if part.note)
        if notes and name != REFERENCE:
            screen.remark(f"{name} on {device} under {runtime_name}: {'; '.join(notes)}")
    for line in chain.from_iterable(lacking):
        screen.remark(line)
    for name, method in chosen.items():
        for line in left_out(method):
            screen.remark(f"{name}: {line}")
    for note in work.notes:
        screen.remark(note)
    screen.remark(f"assumed: {ASSUMED}")


def _row(cost: StepCost) -> tuple[Value, ...]:
    shown = [cost.parts[name].latency_s if name in cost.parts else None for name in SHOWN]
    other = sum(part.latency_s for name, part in cost.parts.items() if name not in SHOWN)
    interval = f"{si(cost.low_s, 's')} to {si(cost.high_s, 's')}"
    return (
        cost.latency_s, interval, cost.energy_j, *shown, other, cost.memory.total, cost.status,
    )  # fmt: skip


def _record(device: str, runtime: str, method: str, cost: StepCost) -> dict[str, object]:
    return {
        "device": device,
        "runtime": runtime,
        "method": method,
        "latency_s": cost.latency_s,
        "low_s": cost.low_s,
        "high_s": cost.high_s,
        "energy_j": cost.energy_j,
        "status": cost.status,
        "parts": {name: asdict(part) for name, part in cost.parts.items()},
        "memory_bytes": asdict(cost.memory) | {"total": cost.memory.total},
        "assumed": ASSUMED,
    }
