"""Timed networks priced on a device, and what their times say about its kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dse.errors import DseError
from dse.graph.ir.graph import Graph
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.rank import ranks_in
from dse.measured.table import Defaults, NetworkTable, Row, read_networks
from dse.model import PAST, ZOO_PREFIX, open_model
from dse.predict import Prediction, Usage, load_assignment, predict
from hwmodels.adapt.deviation import Comparison
from hwmodels.adapt.limits import refuse_far
from hwmodels.adapt.network_fit import TimedNetwork
from hwmodels.errors import HardwareError, MeasurementError
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.platform import Platform, load_platform
from hwmodels.work.kernel import by_group

Setting = tuple[object, ...]
LINES_SHOWN = 5
"""Lines of rows that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNetworks:
    """A table's rows beside their predictions."""

    table: NetworkTable
    platform: Platform
    """The device, under the runtime of rows that name none."""
    comparison: Comparison
    """In seconds."""
    networks: tuple[TimedNetwork, ...]
    remarks: tuple[str, ...]
    """Remarks of the predictions on the networks, each once."""


def check_networks(path: Path, device: str, defaults: Defaults) -> CheckedNetworks:
    """The networks of a table as they are predicted on a device.

    Raises:
        MeasurementError: A wrong table, a row that cannot be priced, or times in another unit.
        GraphError: A model that cannot be opened.
        HardwareError: No such device or runtime.
    """
    platform = load_platform(device, runtime=defaults.runtime)
    models = _Models(dims=defaults.dims)
    table = read_networks(path, defaults, models.sizes_of)
    found = _predictions(table, models.graphs, platform)
    measured = np.array([row.measured_s for row in table.rows])
    predicted = np.array([one.cost.latency_s for one in found])
    refuse_far(measured, predicted, source=table.source, column=table.time, device=platform.device)
    return CheckedNetworks(
        table=table,
        platform=platform,
        comparison=Comparison(
            measured=measured,
            predicted=predicted,
            low=np.array([one.cost.low_s for one in found]),
            high=np.array([one.cost.high_s for one in found]),
            labels=_labels(table.rows, found),
        ),
        networks=tuple(
            TimedNetwork(runtime=one.runtime, measured_s=row.measured_s, times=by_group(one.times))
            for row, one in zip(table.rows, found, strict=True)
        ),
        remarks=tuple(dict.fromkeys(remark for one in found for remark in one.remarks)),
    )


@dataclass(slots=True, kw_only=True)
class _Models:
    """Models by name, each opened once."""

    dims: Mapping[str, int]
    """Sizes that hold for all rows."""
    graphs: dict[str, Graph] = field(default_factory=dict)

    def sizes_of(self, name: str, columns: Sequence[str]) -> Sequence[str]:
        """Names of a model's dimensions; columns of a table may be sizes."""
        if name not in self.graphs:
            sizes = {**dict.fromkeys(columns, 1), **self.dims}
            opened = open_model(name, ranks=ranks_in(sizes), served=PAST in sizes)
            self.graphs[name] = opened.graph
        return dimensions(self.graphs[name])


def _predictions(
    table: NetworkTable, graphs: Mapping[str, Graph], platform: Platform
) -> list[Prediction]:
    """The prediction of every row; rows that differ in the format alone are priced together."""
    groups: dict[Setting, list[int]] = {}
    for place, row in enumerate(table.rows):
        sizes = tuple(sorted(row.dims.items()))
        alone = row.assignment or row.format is None
        setting = (row.model, sizes, row.runtime, row.kv, row.tensor_parallel, row.repeat,
                   row.assignment, bool(alone))  # fmt: skip
        groups.setdefault(setting, []).append(place)
    found: dict[int, Prediction] = {}
    for places in groups.values():
        rows = [table.rows[place] for place in places]
        formats = tuple(dict.fromkeys(row.format for row in rows if row.format is not None))
        by_format = _priced(table, rows, formats, graphs[rows[0].model], platform)
        for place, row in zip(places, rows, strict=True):
            found[place] = by_format[row.format]
    return [found[place] for place in range(len(table.rows))]


def _priced(
    table: NetworkTable,
    rows: Sequence[Row],
    formats: Sequence[str],
    graph: Graph,
    platform: Platform,
) -> dict[str | None, Prediction]:
    """Predictions by format (None: of the assignment, or of 16 bits) of rows that agree else."""
    row = rows[0]
    where = platform
    try:
        if row.runtime is not None and row.runtime != platform.runtime_origin:
            where = replace(
                platform, runtime=load_runtime(row.runtime), runtime_origin=row.runtime
            )
        priced = predict(
            graph,
            [where],
            formats,
            usage=Usage(
                dims=row.dims,
                gpus=row.tensor_parallel,
                repeat=row.repeat,
                kv=catalog.uniform(row.kv) if row.kv else None,
                detailed=True,
            ),
            assignment=load_assignment(row.assignment, graph) if row.assignment else None,
        )
    except (DseError, HardwareError) as problem:
        lines = ", ".join(str(one.line) for one in rows[:LINES_SHOWN])
        raise MeasurementError(f"{table.source}: line {lines}: {problem}") from None
    names = formats or (None,)
    # A model that comes quantized has one price, whatever formats are asked for.
    return dict(zip(names, priced * len(names) if len(priced) == 1 else priced, strict=False))


def _labels(rows: Sequence[Row], found: Sequence[Prediction]) -> dict[str, tuple[str, ...]]:
    """Labels of rows: model, format, regime, and runtime where there are several."""
    labels = {
        "model": tuple(_short(row.model) for row in rows),
        "format": tuple(
            row.assignment.stem if row.assignment else one.format
            for row, one in zip(rows, found, strict=True)
        ),
        "regime": tuple(one.cost.bound for one in found),
        "runtime": tuple(one.runtime for one in found),
    }
    if len(set(labels["runtime"])) == 1:
        del labels["runtime"]
    return labels


def _short(model: str) -> str:
    return model if model.startswith(ZOO_PREFIX) else Path(model).stem
