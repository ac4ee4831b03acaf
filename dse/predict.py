"""Cost of a model on a device: `dse predict`, without torch and without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dse.errors import AssignmentError, some
from dse.evaluate.chain import Chain
from dse.evaluate.deployment import Deployment
from dse.evaluate.phases import (
    Exchange,
    exchange_of,
    fuller_prompts,
    growing_steps,
    phase_work,
    remarks_of,
)  # fmt: skip
from dse.evaluate.request import Request
from dse.evaluate.tables import StoredTables, stored_tables
from dse.graph.annotations import annotations_of
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Region
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.queue import NO_LOAD, SUSTAINED, Queue, loaded
from dse.space.build import is_searched, searched_sites
from dse.space.constraint import Constraint
from dse.space.uniform import WIDE, is_spared, uniform_assignment
from hwmodels.devices.device import Device
from hwmodels.estimators.array.process import device_area_mm2
from hwmodels.formats import catalog
from hwmodels.formats.element import is_wide
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.legality import is_integer
from hwmodels.runtimes.platform import Platform, load_platform
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.load import Load
from hwmodels.tables.network import Choices, CostTable, PhaseWork
from hwmodels.tables.queueing import Traffic
from hwmodels.tables.room import lacking_room
from hwmodels.tables.served import ServedTable
from hwmodels.tables.serving import UTILISATION
from hwmodels.tables.speedup import Following, Speedup, following_errors, speedup
from hwmodels.work.cost import CostEstimate
from hwmodels.work.kernel import PricedKernel
from hwmodels.work.role import ROLES
from hwmodels.work.work import OperandName

AS_GIVEN = "as given"
"""The format of a model that comes quantized, in part at least, where none is asked for."""
SHOWN = 3
"""Sites that a remark names."""
WIDE_FLOATS = 32
"""Bits of the values between products where all products are of 32 bits."""
IN_INTEGERS = "there are no 16-bit floats there to leave them in"
IN_FULL = (
    "every product is of 32 bits, so that values between them are, too; searches, whose choices "
    "are made by region, price those in 16"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The cost of one model in one format on one device."""

    device: str
    runtime: str
    format: str
    """Scheme, format, `assignment`, or `AS_GIVEN`."""
    cost: CostEstimate
    """Parts: one a region; with a request one a phase, whose parts are regions."""
    native_share: float
    """Share of the multiply-accumulates that native kernels execute."""
    serving: Mapping[str, float]
    """Serving numbers by column (`hwmodels.tables.served`); empty without a request."""
    load: Load | None
    """Times of requests while others are served, where asked for; None without a request."""
    sustained_rate: float | None
    """The most requests a second at which the bounds hold; None without bounds."""
    remarks: tuple[str, ...]
    """Assumptions about the network, and parts of it that are not in the price."""
    validated: bool
    """Whether the device's predictions were compared with measurements."""
    note: str
    area_mm2: float | None = None
    """Of the device: the figure of its file, else multipliers and memories at its process."""
    times: Mapping[PricedKernel, float] = field(default_factory=dict)
    """Seconds of every kernel, where asked for; they add up to the latency."""
    slowing: Following | None = None
    """Kernels by what they take off the most requests a second; None where nothing compares."""

    @property
    def answered(self) -> float | None:
        """The most requests a second: within the bounds, else at all; None without a load."""
        if self.sustained_rate is not None or self.load is None:
            return self.sustained_rate
        return self.load.most_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The deployment of the model."""

    dims: Mapping[str, int]
    """Values of the symbolic dimensions; a request fills in what is missing."""
    request: Request | None = None
    """A prompt and its answer instead of one call."""
    rate: float | None = None
    """Requests a second that arrive at random; None: so many clients as the request's batch."""
    bounds: tuple[Constraint, ...] = ()
    """Bounds on columns of `Load`, within which the most requests a second are looked for."""
    gpus: int = 1
    """Tensor parallelism."""
    utilisation: float = UTILISATION
    price_usd_per_h: float | None = None
    kv: Quantizer | None = None
    """Format of the KV cache, whatever the scheme; None: the scheme's."""
    detailed: bool = False
    """Whether the time of every kernel is told (`Prediction.times`), and the load of requests."""
    repeat: int = 1
    """Copies of the model, a block of a network, that follow each other in a chain."""

    def deployment(self, device: Device, runtime: Runtime) -> Deployment:
        """The place of the model."""
        return Deployment(
            device=device,
            runtime=runtime,
            gpus=self.gpus,
            utilisation=self.utilisation,
            price_usd_per_h=self.price_usd_per_h,
        )

    def traffic(self) -> Traffic | None:
        """The requests that come; None without one."""
        if self.request is None:
            return None
        return Traffic(
            prompt=self.request.prompt,
            generate=self.request.generate,
            clients=self.request.batch if self.rate is None else None,
            rate=self.rate,
        )

    def dims_by_phase(self, graph: Graph) -> dict[str, Mapping[str, int]]:
        """Sizes of every phase.

        Raises:
            GraphError: sizes that neither the user nor the request gives.
        """
        if self.request is None:
            return {"call": self.dims}
        return {
            "prefill": self.request.prefill_dims(graph, self.dims),
            "decode": self.request.decode_dims(graph, self.dims),
        }

    def shares(self) -> dict[str, float]:
        """Calls of every phase: one, or those that a batch of requests takes."""
        if self.request is None:
            return {"call": 1.0}
        return {"prefill": float(self.request.batch), "decode": float(self.request.generate)}


def predict(
    graph: Graph,
    devices: Sequence[str | Platform],
    formats: Sequence[str],
    *,
    usage: Usage,
    runtime: str | None = None,
    assignment: Assignment | None = None,
) -> tuple[Prediction, ...]:
    """Predictions for every device and format, devices outermost.

    Args:
        graph: the model; weights are not needed.
        devices: device names or files, each with its runtime if you like: `device:runtime`; or
            platforms themselves.
        formats: schemes or formats; none and no assignment means 16 bits.
        usage: sizes, requests, GPUs.
        runtime: name or file for devices that name none; by default each device's own.
        assignment: priced beside the formats.

    Raises:
        GraphError: symbolic dimensions that are not bound, or a model that is to be repeated and
            has no output that the next copy could read.
        HardwareError: unknown devices, runtimes or formats, or GPUs that cannot share the model.
        AssignmentError: sites that the model does not have, a format of the cache of a model
            without attention.
    """
    analysis = Analysis(graph)
    calls = _calls(analysis, usage)
    lowered = {region.name for region in calls.phases[0].work.regions}
    found = [region for region in analysis.regions if region.name in lowered]
    platforms = [
        one if isinstance(one, Platform) else load_platform(one, runtime=runtime)
        for one in devices
    ]
    predictions: list[Prediction] = []
    asked: dict[bool, tuple[_Asked, tuple[_Asked, _Calls] | None]] = {}
    for platform in platforms:
        spares = not is_integer(platform.device, platform.runtime)
        if spares not in asked:
            given = _given(analysis, found, formats, assignment, spares=spares)
            one = _Asked(
                chosen=_chosen(found, given, usage.kv),
                assignments=tuple(given.values()),
                named=tuple(assignment.as_dict()) if assignment else (),
            )
            wide = [label for label, chosen in one.chosen.items() if _is_wide(found, chosen)]
            in_full = _calls(analysis, usage, float_bits=WIDE_FLOATS) if wide else None
            asked[spares] = one, (one.only(wide), in_full) if in_full else None
        deployment = usage.deployment(platform.device, platform.runtime)
        found_here = _priced(asked[spares][0], calls, asked[spares][1], deployment)
        predictions += found_here if spares else (_whole(one, found) for one in found_here)
    return tuple(predictions)


def speedups(found: Sequence[Prediction]) -> tuple[Speedup, ...]:
    """Speed-up of each prediction over the first one of its device and runtime.

    Args:
        found: predictions with the times of their kernels (`Usage.detailed`), of one model.
    """
    return tuple(
        speedup(base.times, one.times, one.device) for base, one in _beside_the_first(found)
    )


def rate_gains(found: Sequence[Prediction]) -> tuple[Speedup | None, ...]:
    """Requests a second of each prediction over those of the first one of its device.

    Args:
        found: as of `speedups`, of requests.

    Returns:
        None where one of the two answers none, or has no load.
    """
    return tuple(_rate_gain(base, one) for base, one in _beside_the_first(found))


def _beside_the_first(found: Sequence[Prediction]) -> Iterator[tuple[Prediction, Prediction]]:
    """The first prediction of a device and runtime beside each one of them."""
    firsts: dict[tuple[str, str], Prediction] = {}
    for one in found:
        yield firsts.setdefault((one.device, one.runtime), one), one


def _rate_gain(base: Prediction, one: Prediction) -> Speedup | None:
    if not base.answered or not one.answered or base.slowing is None or one.slowing is None:
        return None
    before, after = following_errors((base.slowing, one.slowing), one.device)
    return Speedup.of(one.answered / base.answered, float(np.linalg.norm(after - before)))


def _calls(analysis: Analysis, usage: Usage, *, float_bits: int = 16) -> _Calls:
    """The calls of a deployment, whose values between products have floats of so many bits."""
    dims, shares = usage.dims_by_phase(analysis.graph), usage.shares()
    phases = tuple(
        PhaseWork(
            name=name,
            share=shares[name],
            work=phase_work(
                analysis,
                sizes,
                usage.gpus,
                float_bits=float_bits,
                answers=usage.request is not None,
            ),
        )
        for name, sizes in dims.items()
    )
    exchange = exchange_of(phases) if usage.request else None
    return _Calls(
        analysis=analysis,
        phases=phases,
        exchange=exchange,
        steps=growing_steps(analysis, dims["decode"], usage.gpus, float_bits=float_bits)
        if exchange
        else (),
        prompts=fuller_prompts(
            analysis, dims["prefill"], exchange.prompt, usage.gpus, float_bits=float_bits
        )
        if exchange and usage.detailed
        else (),
        detailed=usage.detailed,
        chain=Chain.of(analysis, phases[0].work, next(iter(dims.values())), usage.repeat),
        traffic=usage.traffic() if usage.detailed else None,
        bounds=usage.bounds,
    )


def _priced(
    asked: _Asked, calls: _Calls, wide: tuple[_Asked, _Calls] | None, deployment: Deployment
) -> Iterator[Prediction]:
    """One prediction a label: of a network of 32 bits where its products have kernels for that."""
    in_full = {one.format: one for one in wide[1].priced(wide[0], deployment)} if wide else {}
    kept = {label for label, one in in_full.items() if one.cost.status != "emulated"}
    rest = asked.only([label for label in asked.chosen if label not in kept])
    others = {one.format: one for one in calls.priced(rest, deployment)} if rest.chosen else {}
    for label in asked.chosen:
        if label in kept:
            one = in_full[label]
            yield replace(one, remarks=(*one.remarks, IN_FULL))
        else:
            yield others[label]


def _whole(prediction: Prediction, found: Sequence[Region]) -> Prediction:
    """With the remark that a scheme spared nothing, where it would have elsewhere."""
    spared = [region.name for region in found if is_spared(region, prediction.format)]
    if not spared:
        return prediction
    words = f"{prediction.format} holds for {', '.join(spared[:SHOWN])}, too: {IN_INTEGERS}"
    return replace(prediction, remarks=(*prediction.remarks, words))


ByRegion = Mapping[str, Mapping[OperandName, Quantizer]]


def _given(
    analysis: Analysis,
    found: Sequence[Region],
    formats: Sequence[str],
    assignment: Assignment | None,
    *,
    spares: bool,
) -> dict[str, Assignment]:
    """Assignments by label; `spares` is whether schemes leave embeddings and head in 16 bits."""
    if analysis.given and not any(is_searched(region) for region in found):
        formats = ()  # they would all name the same price
    given = {
        name: uniform_assignment(found, name, analysis.ties, spares=spares) for name in formats
    }
    if not formats and assignment is None:
        # Nobody chose 16 bits for weights that come in fewer.
        packed = {f"{node}/in{index}" for node, index in analysis.given}
        sites = uniform_assignment(found, WIDE, analysis.ties).as_dict()
        plain = Assignment.of({key: q for key, q in sites.items() if key not in packed})
        given[AS_GIVEN if analysis.given else WIDE] = plain
    if assignment is not None:
        given["assignment"] = assignment
    return given


def _chosen(
    found: Sequence[Region], given: Mapping[str, Assignment], kv: Quantizer | None
) -> dict[str, ByRegion]:
    """Operands by region, for every label.

    Raises:
        AssignmentError: a format of the cache, and no attention.
    """
    chosen: dict[str, ByRegion] = {}
    if kv is not None and not any(region.kind == "attention" for region in found):
        raise AssignmentError(
            f"--kv {kv.name}: the model has no attention whose keys and values could be kept in "
            "it; leave --kv out"
        )
    for label, sites in given.items():
        by_region = _of_assignment(found, sites)
        if kv is None:
            chosen[label] = by_region
            continue
        cached = {region.name for region in found if region.kind == "attention"}
        chosen[f"{label} kv {kv.name}"] = {
            name: {**operands, "k": kv, "v": kv} if name in cached else operands
            for name, operands in by_region.items()
        }
    return chosen


def _is_wide(found: Sequence[Region], chosen: ByRegion) -> bool:
    """Whether every product multiplies plain floats of more than 16 bits."""
    products = [chosen[region.name] for region in found if is_searched(region)]
    return bool(products) and all(
        operands and all(is_wide(one) for name, one in operands.items() if name != "sum")
        for operands in products
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Formats to price, by label."""

    chosen: Mapping[str, ByRegion]
    assignments: Sequence[Assignment]
    """One a label."""
    named: tuple[str, ...]
    """Sites of the assignment that is priced beside formats."""

    def only(self, labels: Sequence[str]) -> _Asked:
        """Some of them, in their order."""
        pairs = zip(self.chosen, self.assignments, strict=True)
        return replace(
            self,
            chosen={label: one for label, one in self.chosen.items() if label in labels},
            assignments=tuple(one for label, one in pairs if label in labels),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calls:
    """The model's call, whatever the formats and the device."""

    analysis: Analysis
    phases: tuple[PhaseWork, ...]
    exchange: Exchange | None
    steps: tuple[PhaseWork, ...]
    prompts: tuple[PhaseWork, ...]
    detailed: bool
    chain: Chain
    traffic: Traffic | None
    bounds: tuple[Constraint, ...]

    def priced(self, asked: _Asked, deployment: Deployment) -> Iterator[Prediction]:
        """One prediction a label; one table for all that store look-ups alike.

        It plans equal regions once.
        """
        chosen = asked.chosen
        stored = [
            stored_tables(self.analysis, self.phases[0].work, formats, given, deployment)
            for formats, given in zip(chosen.values(), asked.assignments, strict=True)
        ]
        names = dict.fromkeys(region for formats in chosen.values() for region in formats)
        copies = self.chain.copies(names)
        choices = {
            copy: tuple(formats.get(region, {}) for formats in chosen.values())
            for copy, region in copies.items()
        }
        alike = {one.formats: one for one in stored}
        tables = {
            formats: self._tabled(one, choices, deployment) for formats, one in alike.items()
        }
        device = deployment.device
        unpriced = _unpriced(self.analysis, asked.named, deployment.runtime)
        remarks = (*remarks_of(self.phases), *unpriced, *self.chain.remarks(self.phases))
        for index, (label, one) in enumerate(zip(chosen, stored, strict=True)):
            assignment = dict.fromkeys(copies, index)
            table, served = tables[one.formats]
            cost = self.chain.by_region(table.total(assignment))
            alone = served is None and deployment.gpus == 1  # serving counts its own memory
            busy, slowing = NO_LOAD, None
            if served and self.traffic:
                engine = served.engine(assignment, deployment.runtime.batching)
                where = f"{label} on {device.name}"
                busy = loaded(engine, self.traffic, self.bounds, deployment.runtime, where)
                if len(chosen) > 1 and busy.load is not None:
                    slowing = self._slowing(served, assignment, deployment.runtime)
            room = lacking_room(cost, device, label) if alone else ()
            yield Prediction(
                device=device.name,
                runtime=deployment.runtime.name,
                format=label,
                cost=cost,
                native_share=table.native_share(assignment),
                serving=served.total(assignment) if served else {},
                load=busy.load,
                sustained_rate=busy.sustained_rate,
                remarks=(*remarks, *one.remarks, *room, *busy.remarks),
                validated=bool(device.validated),
                note=device.note,
                area_mm2=device_area_mm2(device),
                times=table.times(assignment) if self.detailed else {},
                slowing=slowing,
            )

    def _slowing(
        self, served: ServedTable, assignment: Mapping[str, int], runtime: Runtime
    ) -> Following:
        """Kernels by what they take off the most requests a second."""
        assert self.traffic is not None, "there is a load"
        queue = Queue(served=served, runtime=runtime, traffic=self.traffic, bounds=self.bounds)
        chosen = np.array([[assignment.get(name, 0) for name in served.table.regions]])
        (moved,) = queue.elasticities(chosen, SUSTAINED if self.bounds else "most_rate")
        calls = [served.table.times(assignment, name) for name in (served.prefill, served.decode)]
        return Following.of(calls, -moved)

    def _tabled(
        self, stored: StoredTables, choices: Choices, deployment: Deployment
    ) -> tuple[CostTable, ServedTable | None]:
        """The costs of all labels where look-ups are stored so."""
        phases = self.chain.applied(stored.applied(self.phases))
        steps = self.chain.applied(stored.applied(self.steps))
        table = deployment.table(phases, choices, detailed=self.detailed)
        if self.exchange is None:
            return table, None
        prompts = self.chain.applied(stored.applied(self.prompts))
        return table, deployment.served(table, self.exchange, steps, choices, prompts=prompts)


def _unpriced(analysis: Analysis, named: Sequence[str], runtime: Runtime) -> tuple[str, ...]:
    """Says which formats of an assignment stand where nothing is priced by format."""
    summed = {site.key for site in analysis.sums}
    others = [key for key in named if key not in analysis.by_key and key not in summed]
    priced = {site.key for site in analysis.tables} if others else set()
    if others and runtime.stores_tensors:
        priced |= {site.key for sites in analysis.stored.values() for site in sites}
    names = [key for key in others if key not in priced]
    if not names:
        return ()
    return (
        f"not priced: formats at {some(names, SHOWN)}: only operands of products and "
        "tables of look-ups are",
    )


def _of_assignment(
    found: Sequence[Region], assignment: Assignment
) -> dict[str, Mapping[OperandName, Quantizer]]:
    """Operands by region; sites of one role in one region must agree, as one kernel runs them.

    Raises:
        AssignmentError: they do not.
    """
    given = assignment.as_dict()
    by_region: dict[str, Mapping[OperandName, Quantizer]] = {}
    for region in found:
        chosen: dict[OperandName, Quantizer] = {}
        for site in (*searched_sites(region), *region.sums):
            quantizer = given.get(site.key)
            if quantizer is None:
                continue
            operand = ROLES[site.role].operands[site.pass_]
            if chosen.setdefault(operand, quantizer) != quantizer:
                label = ROLES[site.role].label
                raise AssignmentError(
                    f"{site.key}: is {quantizer.name}, but another {label} of region "
                    f"{region.name} is {chosen[operand].name}; the runtime executes the region "
                    "as one kernel, so give them the same format"
                )
        by_region[region.name] = chosen
    return by_region


def load_assignment(path: Path, graph: Graph) -> Assignment:
    """The assignment of a JSON file, or the one that an annotated ONNX file has chosen.

    Raises:
        AssignmentError: no such file, not JSON, nothing chosen, or it does not fit the model.
        GraphError: an ONNX file that cannot be used.
    """
    if path.suffix == ".onnx":
        return _annotated_assignment(path, graph)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AssignmentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AssignmentError(f"{path}: not JSON: is not UTF-8 ({error})") from error
    return from_json(text, graph, catalog.quantizer, origin=str(path))


def _annotated_assignment(path: Path, graph: Graph) -> Assignment:
    """The assignment that an ONNX file's annotations have chosen."""
    other = load(path)
    if other.digest != graph.digest:
        raise AssignmentError(
            f"{path}: is another model: its digest is {other.digest[:16]}, that of the model to "
            f"price or measure {graph.digest[:16]}"
        )
    annotations = annotations_of(Analysis(other))
    if annotations is None or not annotations.chosen:
        raise AssignmentError(
            f"{path}: has no chosen formats; write them with: dse annotate RUN --trial N -o FILE"
        )
    return Assignment.of(annotations.chosen)
