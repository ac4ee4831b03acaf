"""Vela's cycles of every region beside those that `dse` predicts, and the peak of the SRAM.

A region is what `dse` prices as one: a product with what follows it elementwise. Vela's operators
are joined to regions by the name of the value that they write; what Vela makes of one (the two
operators of a mean, a product of activations) carries that name and an ending.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dse.graph.ir.assignment import Assignment
from dse.model import Model, open_model
from dse.predict import Usage, predict
from hwmodels.devices.load import load_device
from hwmodels.formats.catalog import quantizer
from studies.npu_vela.networks import NETWORKS, built, set_of
from studies.npu_vela.vela import DEVICES, RESULTS

ACTIVATIONS = {8: "int8:static", 16: "int16:static"}
WEIGHTS = {8: "int8_channel", 4: "int4_channel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both estimates: a row a region, and a row a network."""

    regions: pd.DataFrame
    networks: pd.DataFrame


def compare() -> Comparison:
    """All networks on all devices."""
    operators = pd.read_csv(RESULTS / "operators.csv")
    sram = pd.read_csv(RESULTS / "networks.csv").set_index(["network", "device"]).sram_bytes
    peaks = {key: int(count) for key, count in sram.to_dict().items()}
    regions: list[dict[str, object]] = []
    networks: list[dict[str, object]] = []
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            model = open_model(str(built(name, Path(folder))))
            found = predict(
                model.graph, list(DEVICES), [], usage=Usage(dims={}),
                assignment=assignment(model, name),
            )  # fmt: skip
        for one in found:
            chosen = (operators.network == name) & (operators.device == one.device)
            hertz = load_device(one.device).unit("matrix").clock_hz.value
            ours = {part: cost.latency_s * hertz for part, cost in one.cost.parts}
            rows = _by_region(model, operators[chosen], ours)
            labels = {"network": name, "device": one.device, "set": set_of(name)}
            regions += [{**labels, **row} for row in rows]
            networks.append({
                **labels, "status": one.cost.status,
                "vela_sram": peaks[name, one.device],
                "sram": one.cost.peak_bytes,
                "vela_cycles": int(operators[chosen].cycles.sum()),
                "cycles": round(one.cost.latency_s * hertz),
            })  # fmt: skip
    return Comparison(regions=pd.DataFrame(regions), networks=pd.DataFrame(networks))


def assignment(model: Model, name: str) -> Assignment:
    """The integers that a network is made of."""
    network = NETWORKS[name]
    found = {}
    for site in model.analysis.sites:
        weight = site.role == "weight"
        bits = network.weight_bits if weight else network.bits
        found[site.key] = quantizer(WEIGHTS[bits] if weight else ACTIVATIONS[bits])
    return Assignment.of(found)


def _by_region(
    model: Model, operators: pd.DataFrame, ours: dict[str, float]
) -> list[dict[str, object]]:
    """Both cycles of the regions that Vela has operators of."""
    region_of = {node: one.name for one in model.analysis.regions for node in one.nodes}
    cycles: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for row in operators.to_dict("records"):
        region = region_of[_node(str(row["name"]), region_of)]
        cycles[region] = cycles.get(region, 0) + int(row["cycles"])
        kinds.setdefault(region, str(row["operator"]))
    return [
        {"region": region, "operator": kinds[region], "vela": count, "predicted": ours[region]}
        for region, count in cycles.items()
    ]


def _node(value: str, known: dict[str, str]) -> str:
    """The node that a name of Vela's begins with."""
    return max((node for node in known if value.startswith(node)), key=len)
