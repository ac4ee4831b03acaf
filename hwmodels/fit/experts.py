"""`python -m hwmodels.fit.experts --aiconfigurator DIR -o ARTEFACT.npz`.

Rebuilds what is learned of the experts of mixtures (`estimators/gpu/experts`): trees on all
devices. The interval of what was measured comes from folds over rows and over models, that of what
was not from leaving each device out.

A row of a table is a whole layer: gate and up, activation, down, weighted sum. Both products are
taken to miss the skeleton by what the layer does, beside its other kernels.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.load import load_device
from hwmodels.errors import MeasurementError
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.experts import (
    ARTEFACT,
    ExpertArtefact,
    expert_inputs,
    expert_kernel,
    has_experts,
    save_experts,
)
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import Floats
from hwmodels.estimators.gpu.standing import SHARES, Standing, written
from hwmodels.estimators.gpu.trees import Trees, with_name
from hwmodels.fit.left_out import Errors, joined
from hwmodels.fit.measurement import RUNTIMES, SYSTEMS
from hwmodels.fit.trees import Growth, grown
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.plans.conversion import kernels_of
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.work import Op, Operand, OperandName, RegionWork

LOG = logging.getLogger("hwmodels.fit.experts")
VERSION = "1"
Formats = Mapping[OperandName, Quantizer]
FORMATS: dict[str, Formats] = {
    "bfloat16": {},
    "fp8": {
        "weight": catalog.quantizer("e4m3_tensor:static"),
        "input": catalog.quantizer("e4m3_tensor:static"),
    },
    "fp8_block": {
        "weight": catalog.quantizer("e4m3@b128x128/fp32"),
        "input": catalog.quantizer("e4m3@g128/fp32"),
    },
    "int4_wo": {"weight": catalog.quantizer("int4_g128")},
    "nvfp4": {"weight": catalog.quantizer("nvfp4"), "input": catalog.quantizer("nvfp4")},
    "w4a16_mxfp4": {"weight": catalog.quantizer("mxfp4")},
    "w4a8_mxfp4_mxfp8": {
        "weight": catalog.quantizer("mxfp4"),
        "input": catalog.quantizer("mxfp8"),
    },
}
SKEWS = {"balanced": 0, "power_law_1.01": 101, "power_law_1.2": 120}
# Nemotron's layers have no gate, which the tables do not tell (recalled; its models alone have
# these sizes).
UNGATED_CHOICES = 22
UNGATED_INNER = 1856
GROUPS = ["device", "runtime", "dtype"]
MODEL = ["hidden", "inner", "topk", "experts"]
"""Sizes that tell models apart."""
ROWS_PER_GROUP = 1200
FOLDS = 3
LEAST_SHARE = 0.3
"""Least share of a layer's time that is left for its products, beside its other kernels."""
SIZE = Growth(trees=400, leaves=32, depth=9, leaf_rows=12, rate=0.08)


def main() -> None:
    """Reads, fits, writes; logs what it does."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit.experts", description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    layers = Layers.of(sampled(read_experts(given.aiconfigurator), given.seed))
    LOG.info("%d layers of %d devices", len(layers.table), layers.table["device"].nunique())
    save_experts(fit_experts(layers, given.seed), given.output)
    LOG.info("wrote %s, %d bytes", given.output, given.output.stat().st_size)


def read_experts(folder: Path) -> pd.DataFrame:
    """All layers of experts below `<folder>/<system>/moe/`.

    Raises:
        MeasurementError: No tables there.
    """
    paths = sorted(folder.glob("*/moe/*/*/moe_perf.parquet"))
    if not paths:
        raise MeasurementError(f"{folder}: no <system>/moe/<framework>/<version>/moe_perf.parquet")
    return pd.concat(
        [_read(path, path.relative_to(folder).parts) for path in paths], ignore_index=True
    )


def _read(path: Path, parts: tuple[str, ...]) -> pd.DataFrame:
    table = pd.read_parquet(path)
    table = table[table["moe_dtype"].isin(list(FORMATS)) & (table["latency"] > 0)]
    gated = (table["topk"] != UNGATED_CHOICES) & (table["inter_size"] != UNGATED_INNER)
    return pd.DataFrame(
        {
            "device": SYSTEMS[parts[0]],
            "runtime": RUNTIMES[parts[2]],
            "dtype": table["moe_dtype"],
            "tokens": table["num_tokens"],
            "hidden": table["hidden_size"],
            "inner": table["inter_size"],
            "topk": table["topk"],
            "experts": table["num_experts"],
            "tensor_parts": table["moe_tp_size"],
            "expert_parts": table["moe_ep_size"],
            "skew": table["distribution"].map(SKEWS),
            "gated": gated,
            "latency_s": table["latency"] * 1e-3,
        }
    )


def sampled(table: pd.DataFrame, seed: int, most: int = ROWS_PER_GROUP) -> pd.DataFrame:
    """At most so many rows of every group, shuffled."""
    shuffled = table.sample(frac=1.0, random_state=seed)
    return shuffled.groupby(GROUPS).head(most).reset_index(drop=True)


def expert_layer(row: Mapping[str, int]) -> tuple[RegionWork, RegionWork]:
    """Gate and up with their activation, and down with the weighted sum, of one GPU."""
    parts = row["expert_parts"]
    routing = {
        "E": max(row["experts"] // parts, 1),
        "M": max(round(row["tokens"] * row["topk"] / parts), 1),
        "topk": max(row["topk"] // parts, 1),
        "parts": parts,
        "skew": row["skew"],
    }
    hidden, inner = row["hidden"], max(row["inner"] // row["tensor_parts"], 1)
    tokens, rows = row["tokens"], routing["M"]
    names = ("gate", "up") if row["gated"] else ("up",)
    activation = "silu_mul" if row["gated"] else "relu"
    up = (
        *(_grouped(name, "x", tokens, routing, (hidden, inner)) for name in names),
        _pointwise("act", activation, names, (rows, inner), "h"),
    )
    down = (
        _grouped("down", "h", rows, routing, (inner, hidden)),
        _pointwise("sum", "sum", ("down",), (rows, hidden), "y"),
    )
    return _region("experts_gate_up", up), _region("experts_down", down)


def _grouped(
    name: str, read: str, read_rows: int, routing: Mapping[str, int], widths: tuple[int, int]
) -> Op:
    k, n = widths
    weight = Operand(
        name="weight",
        value=f"{name}.w",
        shape=(routing["E"], k, n),
        contraction_axes=(1,),
        is_weight=True,
    )
    activation = Operand(name="input", value=read, shape=(read_rows, k), contraction_axes=(1,))
    output = Operand(name="output", value=name, shape=(routing["M"], n))
    return Op(
        name=name,
        kind="grouped_gemm",
        sizes={**routing, "K": k, "N": n},
        operands=(activation, weight, output),
    )


def _pointwise(
    name: str, detail: str, reads: Sequence[str], shape: tuple[int, int], write: str
) -> Op:
    inputs = tuple(Operand(name="input", value=value, shape=shape) for value in reads)
    output = Operand(name="output", value=write, shape=shape)
    return Op(
        name=name,
        kind="elementwise",
        sizes={"rows": shape[0], "cols": shape[1]},
        operands=(*inputs, output),
        detail=detail,
    )


def _region(role: str, ops: tuple[Op, ...]) -> RegionWork:
    writes = {o.value: o for op in ops for o in op.operands if o.name == "output"}
    reads = {o.value: o for op in ops for o in op.operands if o.name != "output"}
    return RegionWork(
        name=role,
        kind="grouped_gemm",
        role=role,
        ops=ops,
        reads=tuple(o for value, o in reads.items() if value not in writes),
        writes=tuple(o for value, o in writes.items() if value not in reads),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Measured layers and the products in them, two a layer."""

    table: pd.DataFrame
    layer: NDArray[np.intp]
    """Row of `table` of each product, shape (products,)."""
    inputs: Floats
    """Shape (products, features)."""
    names: NDArray[np.str_]
    """The kernel's code, by product."""
    seconds: Floats
    """The skeleton's, by product."""
    light: Floats
    others: Floats
    """Seconds of the other kernels, by layer."""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Layers:
        """The layers that some kernel of their runtime takes; the others are left out."""
        found = [
            _part(table.loc[index], *map(str, cast("tuple[object, ...]", key)))
            for key, index in table.groupby(GROUPS).groups.items()
        ]
        starts = np.cumsum([0, *(len(one.table) for one in found)])[:-1]
        return cls(
            table=pd.concat([one.table for one in found], ignore_index=True),
            layer=np.concatenate(
                [one.layer + start for one, start in zip(found, starts, strict=True)]
            ),
            **{
                name: np.concatenate([getattr(one, name) for one in found])
                for name in ("inputs", "names", "seconds", "light", "others")
            },
        )

    def chosen(self, rows: NDArray[np.bool_]) -> Layers:
        """Some of the layers."""
        products = rows[self.layer]
        number = np.cumsum(rows) - 1
        return Layers(
            table=self.table[rows].reset_index(drop=True),
            layer=number[self.layer[products]],
            inputs=self.inputs[products],
            names=self.names[products],
            seconds=self.seconds[products],
            light=self.light[products],
            others=self.others[rows],
        )

    @property
    def weights(self) -> Floats:
        """Groups of a device count equally, and devices do; shape (layers,), of mean 1."""
        counts = self.table.groupby(GROUPS)["tokens"].transform("size").to_numpy(dtype=float)
        groups = self.table[GROUPS].drop_duplicates().groupby("device").size()
        weights = 1 / counts / self.table["device"].map(groups).to_numpy(dtype=float)
        return cast("Floats", weights / weights.mean())

    @property
    def target(self) -> Floats:
        """log(measured / skeleton) of the products of each layer, shape (products,)."""
        measured = self.table["latency_s"].to_numpy(dtype=float)
        left = np.maximum(measured - self.others, LEAST_SHARE * measured)
        return np.asarray(np.log(left / self.summed(self.seconds))[self.layer])

    def summed(self, products: Floats) -> Floats:
        """Sums over the products of each layer."""
        return _sums(self.layer, products, len(self.table))

    def columns(self, kernels: tuple[str, ...]) -> Floats:
        """The trees' inputs, shape (products, features and kernels)."""
        found = np.zeros((len(self.names), self.inputs.shape[1] + len(kernels)))
        for name in np.unique(self.names):
            rows = self.names == name
            found[rows] = with_name(self.inputs[rows], str(name), kernels)
        return found

    def log_errors(self, trees: Trees, kernels: tuple[str, ...], share: float) -> Floats:
        """log(measured / predicted) of layers, with a share of the trees."""
        correction = share * trees.predict(self.columns(kernels))
        products = np.maximum(self.seconds * np.exp(correction), self.light)
        predicted = self.summed(products) + self.others
        return np.asarray(np.log(self.table["latency_s"].to_numpy(dtype=float) / predicted))


def _part(table: pd.DataFrame, device_name: str, runtime_name: str, dtype: str) -> Layers:
    device, runtime = load_device(device_name), load_runtime(runtime_name)
    products: list[Kernel] = []
    others: list[Kernel] = []
    owners: tuple[list[int], list[int]] = ([], [])
    kept: list[int] = []
    for index, row in zip(table.index, table.to_dict("records"), strict=True):
        sizes = {
            str(name): int(value)
            for name, value in row.items()
            if name not in (*GROUPS, "latency_s")
        }
        plans = [
            plan_region(region.quantized(FORMATS[dtype]), device, runtime)
            for region in expert_layer(sizes)
        ]
        if any(plan.status in ("substituted", "emulated") for plan in plans):
            continue
        kernels = [k for plan in plans for k in (*kernels_of(plan.conversions), *plan.kernels)]
        for kernel in kernels:
            is_product = has_experts(kernel, runtime)
            (products if is_product else others).append(kernel)
            owners[not is_product].append(len(kept))
        kept.append(index)
    costs = GpuEstimator().estimate(others, device, runtime)
    terms, inputs = expert_inputs(products, device, load_artefact().constants)
    return Layers(
        table=table.loc[kept].reset_index(drop=True),
        layer=np.array(owners[0], dtype=np.intp),
        inputs=inputs,
        names=np.array([expert_kernel(kernel, device, runtime) for kernel in products]),
        seconds=terms.latency_s,
        light=terms.light_s,
        others=_sums(owners[1], [cost.latency_s for cost in costs], len(kept)),
    )


def _sums(
    owners: Sequence[int] | NDArray[np.intp], values: Sequence[float] | Floats, count: int
) -> Floats:
    return np.bincount(owners, values, count).astype(float)


def fit_trees(layers: Layers, kernels: tuple[str, ...], seed: int = 0) -> Trees:
    """Trees on what products miss the skeleton by."""
    return grown(layers.columns(kernels), layers.target, layers.weights[layers.layer], SIZE, seed)


def fit_experts(layers: Layers, seed: int = 0) -> ExpertArtefact:
    """The artefact of a table."""
    measured = measured_kernels(layers)
    kernels = tuple(measured)
    seen = [errors_over_rows(layers, kernels, seed), errors_over_models(layers, kernels, seed)]
    near = joined(seen).ends
    far = joined(errors_over_devices(layers, kernels, seed)).ends
    LOG.info("seen %s, unseen %s", near, far)
    return ExpertArtefact(
        version=VERSION,
        kernels=kernels,
        measured=measured,
        trees=fit_trees(layers, kernels, seed),
        seen=near,
        unseen=far,
    )


def measured_kernels(layers: Layers) -> dict[str, dict[str, str]]:
    """By kernel: the devices that it was measured on, with their architectures."""
    devices = layers.table["device"].to_numpy(dtype=str)[layers.layer]
    found: dict[str, dict[str, str]] = {}
    for name, device in sorted(set(zip(layers.names.tolist(), devices.tolist(), strict=True))):
        found.setdefault(name, {})[device] = written(load_device(device).architecture)
    return found


def errors_over_rows(layers: Layers, kernels: tuple[str, ...], seed: int) -> Errors:
    """Folds over rows: measured devices and models, at other sizes."""
    fold = np.random.default_rng(seed).integers(0, FOLDS, len(layers.table))
    return joined(_folds(layers, kernels, fold, seed))


def errors_over_models(layers: Layers, kernels: tuple[str, ...], seed: int) -> Errors:
    """Folds over models: measured devices alone."""
    models = pd.util.hash_pandas_object(layers.table[MODEL], index=False).to_numpy()
    return joined(_folds(layers, kernels, (models % FOLDS).astype(np.int64), seed))


def _folds(
    layers: Layers, kernels: tuple[str, ...], fold: NDArray[np.int64], seed: int
) -> Iterator[Errors]:
    for index in range(FOLDS):
        trees = fit_trees(layers.chosen(fold != index), kernels, seed)
        yield errors_of(layers.chosen(fold == index), trees, kernels, "seen")


def errors_over_devices(layers: Layers, kernels: tuple[str, ...], seed: int) -> Iterator[Errors]:
    """Each device as trees of the others predict it."""
    devices = layers.table["device"].to_numpy(dtype=str)
    for device in np.unique(devices):
        trees = fit_trees(layers.chosen(devices != device), kernels, seed)
        yield errors_of(layers.chosen(devices == device), trees, kernels, "unseen")


def errors_of(
    layers: Layers, trees: Trees, kernels: tuple[str, ...], standing: Standing
) -> Errors:
    """Errors with the share of the trees that such a device has."""
    log = layers.log_errors(trees, kernels, SHARES[standing])
    return Errors(table=layers.table, log=log, weights=layers.weights)


if __name__ == "__main__":
    main()
