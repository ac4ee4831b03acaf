"""Predicted times: products in several formats, training steps of several methods, few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from dse.evaluate.phases import phase_work
from dse.evaluate.request import Request
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.predict import Usage, predict
from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.tensors import Positive, Size
from dse.training.price import step_cost
from hwmodels.adapt.few_shot import samples_of, with_measurements
from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.devices.vary import DeviceFile
from hwmodels.formats.catalog import is_scheme, quantizer, scheme
from hwmodels.formats.quantizer import Quantizer
from hwmodels.operators.measured import measurements_of
from hwmodels.operators.optable import OpTable, checked_table
from hwmodels.runtimes.load import runtime_with
from hwmodels.runtimes.platform import load_platform, split_platform
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.validation import Entry
from hwmodels.work.work import Op, Operand, OperandName, RegionWork, Work

FOLDER = Path(__file__).parents[1] / "catalogue"
Floats = NDArray[np.float64]
Pair = tuple[str, str]
SERVED = ("tokens_per_s_per_gpu", "full_tokens_per_s_per_gpu")
"""Numbers of serving that are rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced(Entry):
    """A device whose kernels are priced."""

    device: str
    """With or without a runtime."""
    runtime: str = ""
    """A file of kernels beside those of systems, instead of the device's own runtime."""
    set: Mapping[str, int | float | str] = field(default_factory=dict)
    """Figures of the device's file that are others here."""
    runtime_set: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the runtime's file that are others here: fusions that it lacks, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPrices(Entry):
    """Predicted times of products of activations and weights, as formats and their sizes vary."""

    draws: ClassVar[bool] = False
    devices: Annotated[Mapping[str, Priced], Field(min_length=1)]
    """By name."""
    formats: Annotated[Mapping[str, str | Pair], Field(min_length=1)]
    """Schemes by name, or formats of weight and input; what is `bf16` is not quantized."""
    tokens: Annotated[tuple[Size, ...], Field(min_length=1)]
    """Rows of the activations."""
    layers: Annotated[tuple[tuple[Size, Size], ...], Field(min_length=1)]
    """Inputs and outputs of each product; times are sums over them."""
    crossover: tuple[Pair, ...] = ()
    """Pairs of formats of which the first is faster with few tokens."""
    then: tuple[str, ...] = ()
    """Elementwise operators on each result, in their order: `bias`, `relu`."""
    times: bool = False
    """Whether times are among the rows, too."""
    chained: bool = False
    """Whether each product reads the result of the one before, which is quantized on the way."""

    def __post_init__(self) -> None:
        """Refuses a chain whose sizes do not meet.

        Raises:
            ValueError: as its text says.
        """
        borders = zip(self.layers, self.layers[1:], strict=False)
        if self.chained and any(before[1] != after[0] for before, after in borders):
            raise ValueError("layers: chained products read as much as the one before writes")

    def rows(self, seed: int) -> Rows:
        """`<device> <format> <tokens>`: times as fast as the first format; `us`: `times`.

        `<device> <first> to <second>`: least of the `tokens` at which the second is as fast.
        """
        del seed
        found: dict[str, float] = {}
        for device, priced in self.devices.items():
            times = {
                (name, count): self._time(priced, given, count)
                for name, given in self.formats.items()
                for count in self.tokens
            }
            first = next(iter(self.formats))
            for (name, count), time in times.items():
                found[f"{device} {name} {count}"] = times[first, count] / time
                if self.times:
                    found[f"{device} {name} {count} us"] = 1e6 * time
            for one, other in self.crossover:
                met = [count for count in self.tokens if times[other, count] <= times[one, count]]
                found[f"{device} {one} to {other}"] = float(min(met, default=2 * max(self.tokens)))
        return found

    def _time(self, priced: Priced, given: str | Pair, tokens: int) -> float:
        device, named = split_platform(priced.device)
        runtime = runtime_with(
            FOLDER / priced.runtime if priced.runtime
            else named or load_device(device).default_runtime,
            priced.runtime_set,
        )  # fmt: skip
        regions = self._regions(tokens)
        table = CostTable.build(
            [PhaseWork(name="call", share=1.0, work=_work(regions))],
            {region.name: (_choice(given),) for region in regions},
            DeviceFile(device).varied(dict(priced.set)),
            runtime,
        )
        return table.total({region.name: 0 for region in regions}).latency_s

    def _regions(self, tokens: int) -> list[RegionWork]:
        found: list[RegionWork] = []
        for place, sizes in enumerate(self.layers):
            read = found[-1].writes[0].value if self.chained and found else ""
            found.append(_product(f"product {place}", (tokens, *sizes), read, self.then))
        return found


def _choice(given: str | Pair) -> dict[OperandName, Quantizer]:
    if not isinstance(given, str):
        names = dict(zip(("weight", "input"), given, strict=True))
        return {
            name: quantizer(spec)  # type: ignore[misc]
            for name, spec in names.items()
            if spec != "bf16"
        }
    if given == "bf16":
        return {}
    if not is_scheme(given):
        return {"weight": quantizer(given), "input": quantizer(given)}
    found = scheme(given)
    both: dict[OperandName, Quantizer | None] = {"weight": found.weight, "input": found.input}
    return {name: one for name, one in both.items() if one is not None}


def _product(name: str, sizes: tuple[int, int, int], read: str, then: Sequence[str]) -> RegionWork:
    """A product of (tokens, inputs, outputs) and what is done to its result, as one region.

    It reads the value `read`, or one of its own where that is empty.
    """
    tokens, inputs, outputs = sizes
    first = Operand(
        name="input", value=read or f"x of {name}", shape=(tokens, inputs), contraction_axes=(-1,)
    )
    weight = Operand(
        name="weight", value=f"w of {name}", shape=(outputs, inputs), contraction_axes=(-1,),
        is_weight=True,
    )  # fmt: skip
    written = Operand(name="output", value=f"y of {name}", shape=(tokens, outputs))
    gemm = Op(
        name=name, kind="gemm", sizes={"M": tokens, "K": inputs, "N": outputs},
        operands=(first, weight, written),
    )  # fmt: skip
    ops, reads = [gemm], [first, weight]
    for detail in then:
        more = (
            Operand(name="bias", value=f"bias of {name}", shape=(outputs,), is_weight=True),
        ) if detail == "bias" else ()  # fmt: skip
        before, written = written, replace(written, value=f"{detail} of {name}")
        ops.append(
            Op(
                name=f"{name} {detail}", kind="elementwise", detail=detail,
                sizes={"rows": tokens, "cols": outputs},
                operands=(replace(before, name="input"), *more, written),
            )
        )  # fmt: skip
        reads += more
    return RegionWork(
        name=name, kind="gemm", role="linear", ops=tuple(ops), reads=tuple(reads),
        writes=(written,),
    )  # fmt: skip


def _work(regions: Sequence[RegionWork]) -> Work:
    read = {one.value for region in regions for one in region.reads}
    written = [one.value for region in regions for one in region.writes]
    outputs = tuple(value for value in written if value not in read)
    return Work(name="products", regions=tuple(regions), outputs=outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrices(Entry):
    """Predicted times of a training step of a network under several methods."""

    draws: ClassVar[bool] = False
    model: str
    """Of the zoo (`dse zoo`)."""
    dims: Mapping[str, Annotated[int, Field(ge=0)]]
    """Its sizes."""
    device: str
    """With or without a runtime."""
    methods: Annotated[Mapping[str, MethodGiven], Field(min_length=1)]
    """By name."""

    def rows(self, seed: int) -> Rows:
        """Seconds a method, and those of its products alone, `<name> products`."""
        del seed
        work = phase_work(Analysis(open_model(self.model).graph), dict(self.dims), 1)
        platform = load_platform(self.device)
        found: dict[str, float] = {}
        for name, given in self.methods.items():
            cost = step_cost(work, given_method(given), platform)
            products = [cost.parts[one].latency_s for one in ("fprop", "dgrad", "wgrad")]
            found |= {name: cost.latency_s, f"{name} products": sum(products)}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTokens(Entry):
    """Predicted tokens a second and GPU of a language model that serves, by format.

    Where several numbers of GPUs may share the model, each format takes the one that serves most
    tokens a second and GPU: queries a dollar, on devices of one price.
    """

    draws: ClassVar[bool] = False
    model: str
    """Of the zoo, with a cache."""
    devices: Annotated[Mapping[str, str], Field(min_length=1)]
    """Devices by name, with or without a runtime."""
    formats: Annotated[tuple[str, ...], Field(min_length=1)]
    """Schemes or formats; the first one is what others are held against."""
    prompt: Annotated[int, Field(ge=2)] = 1024
    """Tokens of a request."""
    generate: Annotated[int, Field(ge=2)] = 256
    """Tokens of an answer."""
    gpus: Annotated[tuple[Size, ...], Field(min_length=1)] = (1,)
    """Numbers of GPUs that may share the model (tensor parallelism)."""

    def rows(self, seed: int) -> Rows:
        """`<device> <format> one` request at a time, and `full`: as many as fit in memory.

        With several numbers of GPUs `gpus` and `requests` are those of `full`, all 0 where the
        model fits none.
        """
        del seed
        graph = open_model(self.model, served=True).graph
        asked = Request(prompt=self.prompt, generate=self.generate, batch=1)
        found: dict[str, float] = {}
        for device, name in self.devices.items():
            platform = load_platform(name)
            by_format: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
            for gpus in self.gpus:
                usage = Usage(dims={}, request=asked, gpus=gpus)
                for one in predict(graph, [platform], self.formats, usage=usage):
                    by_format.setdefault(one.format, []).append((gpus, one.serving))
            for format, ways in by_format.items():
                found |= self._best(f"{device} {format}", ways)
        return found

    def _best(self, name: str, ways: Sequence[tuple[int, Mapping[str, float]]]) -> Rows:
        alone = len(self.gpus) == 1
        fitting = [(gpus, one) for gpus, one in ways if alone or one["max_batch"] >= 1]
        nothing: Mapping[str, float] = dict.fromkeys((*SERVED, "max_batch"), 0.0)
        gpus, best = max(
            fitting, key=lambda one: one[1]["full_tokens_per_s_per_gpu"], default=(0, nothing)
        )
        single = max((one["tokens_per_s_per_gpu"] for _, one in fitting), default=0.0)
        found = {f"{name} one": single, f"{name} full": best["full_tokens_per_s_per_gpu"]}
        if alone:
            return found
        return found | {f"{name} gpus": float(gpus), f"{name} requests": best["max_batch"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class FewSamples(Entry):
    """Predictions for a device with something that no datasheet says, from a few timed products.

    Its times are those predicted for the device, times a factor that depends on the sizes:
    `hidden` at products of more than `border` bytes of operands, falling to 1 below, and noise.
    """

    draws: ClassVar[bool] = True
    device: str
    """A shipped one."""
    runtime: str
    """Whose kernels are timed."""
    samples: Annotated[tuple[int, ...], Field(min_length=1)] = (3, 10)
    """Numbers of products that are timed."""
    dtypes: tuple[str, ...] = ("bf16", "fp8")
    """Of the products."""
    hidden: Positive = 1.5
    """Factor."""
    border: Positive = 3e7
    """Bytes."""
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Standard deviation of the logarithm of a time."""
    products: Size = 200
    """Products that are predicted."""

    def rows(self, seed: int) -> Rows:
        """Percent of products within 10 %.

        `0`: without a sample; `<samples>`: adapted; `<samples> alone`: a regression of logarithms
        of sizes that knows the samples only.
        """
        rng = np.random.default_rng(seed)
        table = self._timed(rng)
        device = load_device(self.device)
        truth = table.frame["median_us"].to_numpy(dtype=float)
        found = {"0": _within(predict_ops(table, device, self.runtime), truth)}
        for count in self.samples:
            rows = samples_of(table, device, runtime=self.runtime, samples=count, seed=seed)
            adapted = with_measurements(device, measurements_of(table, rows, self.runtime))
            found[f"{count}"] = _within(predict_ops(table, adapted, self.runtime), truth)
            found[f"{count} alone"] = _share(_regressed(table, rows, truth) / truth)
        return found

    def _timed(self, rng: np.random.Generator) -> OpTable:
        sizes = 64 * 2 ** rng.integers(0, 8, (self.products, 3))
        frame = pd.DataFrame(
            {
                "op": "gemm",
                "shape": [f'{{"M": {m}, "K": {k}, "N": {n}}}' for m, k, n in sizes],
                "dtype": rng.choice(self.dtypes, self.products),
            }
        ).drop_duplicates(["shape", "dtype"], ignore_index=True)
        plain = checked_table(frame, source="products", timed=False)
        times = predict_ops(plain, load_device(self.device), self.runtime)["predicted_us"]
        moved = np.array(
            [2.0 * (s["M"] * s["K"] + s["K"] * s["N"] + s["M"] * s["N"]) for s in plain.shapes]
        )
        factor = 1 + (self.hidden - 1) * moved / (moved + self.border)
        factor *= np.exp(self.noise * rng.standard_normal(len(moved)))
        return checked_table(
            frame.assign(median_us=times.to_numpy(dtype=float) * factor),
            source="products", timed=True,
        )  # fmt: skip


def _within(predicted: pd.DataFrame, truth: Floats) -> float:
    return _share(predicted["predicted_us"].to_numpy(dtype=float) / truth)


def _share(ratio: Floats) -> float:
    return float(100 * (np.abs(ratio - 1) <= 0.1).mean())


def _regressed(table: OpTable, rows: NDArray[np.intp], truth: Floats) -> Floats:
    """Times by least squares of logarithms on those of the sizes and the type."""
    types = sorted(set(table.dtypes))
    features = np.array(
        [
            [1.0, *(np.log(shape[one]) for one in ("M", "K", "N")), types.index(dtype)]
            for shape, dtype in zip(table.shapes, table.dtypes, strict=True)
        ]
    )
    weights, *_ = np.linalg.lstsq(features[rows], np.log(truth[rows]), rcond=None)
    found: Floats = np.exp(features @ weights)
    return found
