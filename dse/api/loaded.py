"""`dse.load`: a model to ask what formats cost and what they do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dse.api.given import Candidate, Data, mode_of, samples_of, source_of
from dse.data import ZOO_PREFIX
from dse.errors import DataError
from dse.evaluate.model import Evaluation, evaluate_model
from dse.evaluate.setup import build_evaluator
from dse.graph.assignment_json import from_json
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.dimension import dimensions
from dse.model import Model, open_model
from dse.predict import Prediction, Usage, load_assignment
from dse.predict import predict as predictions
from dse.result import FrontPoint
from dse.sensitivity.score import Method, score
from dse.sensitivity.table import Sensitivity
from dse.space.build import build_problem, is_searched, resolve_choice, searched_sites
from dse.space.init import Draft, space_text
from dse.space.load import parse_space
from dse.space.native import ranges_of
from dse.space.schema import Data as AskedData
from dse.space.schema import Rule
from dse.space.uniform import WIDE, uniform_assignment, with_tables
from hwmodels.devices.device import Device
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator as named_accumulator
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.platform import Platform

Formats = str | Path | Quantizer | Mapping[str, object] | FrontPoint
"""Formats for a whole model: a scheme's or format's name, a quantizer for every site, the JSON
file or object of an assignment, or a point of a front."""


def load(source: str | Path, *, ranks: Mapping[str, int] | None = None) -> LoadedModel:
    """Open a model.

    Args:
        source: `zoo:<name>`, or the path of an ONNX file or of a Hugging Face folder.
        ranks: the number of axes of inputs that the file gives no shape, by name.

    Raises:
        GraphError: no such model, or one that cannot be used.
    """
    text = str(source)
    named = text if text.startswith(ZOO_PREFIX) else str(Path(text).resolve())
    return LoadedModel(source=named, model=open_model(text, ranks=ranks))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LoadedModel:
    """A model with what can be asked about it."""

    source: str
    """The path or name that `dse.load` opens again, from any folder."""
    model: Model
    """The graph, and what must be said about it."""

    def __repr__(self) -> str:
        """The name, with the values that its symbolic dimensions need."""
        sizes = ", ".join(self.dimensions)
        return f"<{self.model.name}: {len(self.model.graph.nodes)} nodes; dims: {sizes or 'none'}>"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The symbolic dimensions that `predict` needs values of."""
        return tuple(dimensions(self.model.graph))

    def predict(
        self,
        device: str | Device,
        format: Formats = WIDE,
        *,
        dims: Mapping[str, int] | None = None,
        runtime: str | None = None,
        repeat: int = 1,
    ) -> Prediction:
        """Latency with interval (s), energy (J) and memory (bytes) of one call; nothing is run.

        Args:
            device: a name or file, with its runtime if you like (`h100-sxm:vllm`), or a device.
            format: what every site takes.
            dims: the value of every symbolic dimension; with `past` a Hugging Face decoder reads
                and writes its key-value cache.
            runtime: a name or file; the device's own by default.
            repeat: copies of the model, a block of a network, in a chain.

        Raises:
            GraphError: a symbolic dimension without a value, or a model that cannot follow itself.
            HardwareError: no such device, runtime or format.
            AssignmentError: an assignment that does not fit the model.
        """
        named = isinstance(format, str) and not _is_file(format)
        (found,) = predictions(
            self.model.priced(dims or ()).graph,
            (_platform(device, runtime) if isinstance(device, Device) else device,),
            (str(format),) if named else (),
            usage=Usage(dims=dict(dims or {}), repeat=repeat),
            assignment=None if named else self.assignment(format),
            runtime=runtime,
        )
        return found

    def evaluate(
        self,
        format: Formats,
        *,
        data: Data = None,
        samples: int = 16,
        compute: Literal["cpu", "cuda"] = "cpu",
        memory_bytes: int | None = None,
        accumulator: str | None = None,
        reference: Formats | None = None,
    ) -> Evaluation:
        """Emulated quality against full precision: divergence in nats, flips, the task's metric.

        Args:
            format: what every site takes.
            data: where samples come from; a zoo model has its own.
            samples: sequences or images to measure on.
            compute: where the network runs.
            memory_bytes: that this process may take on the CPU; None: what the machine has.
            accumulator: of the products, as `hwmodels.formats.accumulator.accumulator` names it
                (`int20`, `fp16`, `e6m9:zero:chunk16`); float32 unless given.
            reference: what every site takes of the network that it is compared with, instead of
                full precision; `.ratios` are the likelihood ratios between the two.

        Raises:
            GraphError: the model has no weights, or an operator that is not supported.
            DataError: no data, or data that do not fit the model.
            AssignmentError: an assignment that does not fit the model, an accumulator that no
                product can take.
            UnknownFormatError: no such accumulator.
        """
        asked = AskedData(source=self._source(data), report=samples)
        return evaluate_model(
            self.model.analysis,
            self.assignment(format),
            asked,
            compute=compute,
            memory_bytes=memory_bytes,
            splits=samples_of(data),
            accumulator=None if accumulator is None else named_accumulator(accumulator),
            reference=None if reference is None else self.assignment(reference),
        )

    def sensitivity(
        self,
        *,
        data: Data = None,
        formats: Sequence[Candidate] = (),
        samples: int | None = None,
        method: Method = "direct",
        compute: Literal["cpu", "cuda"] = "cpu",
        memory_bytes: int | None = None,
    ) -> Sensitivity:
        """The loss of every format in every region alone; `.ranked()` has the worst first.

        Args:
            data: where samples come from; a zoo model has its own.
            formats: schemes, formats or quantizers to score beside bf16; sensible ones by default.
            samples: of the search split.
            method: `direct` measures every choice, `gradient` scores all by one backward pass.
            compute: where the network runs.
            memory_bytes: that this process may take on the CPU; None: what the machine has.

        Raises:
            GraphError: the model has no weights, or an operator that is not supported.
            DataError: no data, or data that do not fit the model.
            HardwareError: no such format.
        """
        text = space_text(self.model, self.source, Draft(data=self._source(data), served=False))
        space = parse_space(text, origin=self.source)
        if formats:
            use = tuple(mode_of(one) for one in (WIDE, *formats))
            changes = {"candidates": (Rule(use=use),), "ranges": ranges_of(use)}
            space = space.model_copy(update=changes)
        problem = build_problem(space, self.model.analysis.regions, origin=self.source)
        evaluator = build_evaluator(
            self.model.analysis,
            space.data,
            {site.key: site for variable in problem.variables for site in variable.sites},
            [
                (site.key, choice.quantizers[site.role])
                for variable in problem.variables
                for choice in variable.choices
                for site in variable.sites
                if site.role in choice.quantizers
            ],
            compute=compute,
            memory_bytes=memory_bytes,
            splits=samples_of(data),
        )
        return score(
            evaluator,
            problem,
            method,
            samples=samples or space.search.sensitivity_samples,
            seed=space.search.seed,
        )

    def assignment(self, format: Formats) -> Assignment:
        """The quantizer of every site.

        Raises:
            HardwareError: no such format.
            AssignmentError: an assignment that does not fit the model.
        """
        analysis = self.model.analysis
        if isinstance(format, Quantizer):
            chosen = resolve_choice(mode_of(format)).quantizers
            searched = (region for region in analysis.regions if is_searched(region))
            every = (site for region in searched for site in searched_sites(region))
            found = {site.key: chosen[site.role] for site in every if site.role in chosen}
            return with_tables(Assignment.of(found), analysis.ties)
        if isinstance(format, Mapping | FrontPoint):
            content = format if isinstance(format, Mapping) else format.assignment
            return from_json(json.dumps(content), self.model.graph, catalog.quantizer)
        if _is_file(format):
            return load_assignment(Path(format), self.model.graph)
        return uniform_assignment(analysis.regions, str(format), analysis.ties)

    def _source(self, data: Data) -> str:
        found = source_of(data)
        if found is not None:
            return found
        if self.source.startswith(ZOO_PREFIX):
            return self.source
        raise DataError(
            f"{self.model.name}: needs data=...: arrays named as the graph's inputs, a zoo name, "
            "an .npz, a token file, a folder of images by class, or module:function"
        )


def _platform(device: Device, runtime: str | None) -> Platform:
    origin = runtime or device.default_runtime
    return Platform(device=device, runtime=load_runtime(origin), runtime_origin=origin)


def _is_file(format: str | Path) -> bool:
    return isinstance(format, Path) or format.endswith(".json")
