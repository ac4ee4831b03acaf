"""Formats at operands that no product has: emulated where an assignment names them, and said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dse.evaluate.model import evaluate_model
from dse.evaluate.setup import build_evaluator
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.numerics import quantize
from dse.predict import Prediction, Usage, predict
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import quantizer
from tests.evaluate import tied
from tests.evaluate.tied import DEPTH, HEAD, ROWS, TABLE


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    folder = tmp_path_factory.mktemp("tied")
    rng = np.random.default_rng(0)
    tied.save(folder / "m.onnx", lambda shape: rng.normal(size=shape))
    np.savez(folder / "d.npz", ids=rng.integers(0, ROWS, size=(24, 4)))
    return open_model(str(folder / "m.onnx")).analysis


@pytest.mark.parametrize("name", ["int8_channel", "int4_g32", "mxfp4"])
def test_a_table_is_rounded_along_its_rows(analysis: Analysis, name: str) -> None:
    path = analysis.graph.path
    assert path is not None
    chosen = Assignment.of({"Gather_0/in0": quantizer(name)})
    found = evaluate_model(analysis, chosen, Data(source=str(path.with_name("d.npz")), report=8))
    table = torch.from_numpy(analysis.graph.initializers["table"].numpy().copy())
    rounded = quantize(table, quantizer(name).settled(weight=False), axes=(1,))
    ids = torch.from_numpy(np.load(path.with_name("d.npz"))["ids"])
    w = torch.from_numpy(analysis.graph.initializers["w"].numpy().copy())

    def answers(rows: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(rows[ids] @ w @ table.T, dim=-1)

    exact, other = answers(table), answers(rounded)
    divergence = (exact.exp() * (exact - other)).sum(-1)
    assert found.quantized.loss > 0
    assert divergence.min() >= -1e-6
    # The report split holds eight of these samples.
    losses = np.sort(divergence.mean(-1).numpy())
    assert losses[0] - 1e-6 <= found.quantized.loss <= losses[-1] + 1e-6


def test_a_format_that_no_price_holds_is_named(analysis: Analysis) -> None:
    (found,) = _predicted(analysis, {"Gather_0/out0": "int8_channel"})
    assert any("not priced: formats at Gather_0/out0" in remark for remark in found.remarks)


def _predicted(analysis: Analysis, sites: dict[str, str]) -> tuple[Prediction, ...]:
    return predict(
        analysis.graph,
        ["h100-sxm:free"],
        [],
        usage=Usage(dims={"batch": 1, "sequence": 4}),
        assignment=Assignment.of({key: quantizer(name) for key, name in sites.items()}),
    )


FORMATS = ["int8", "int8_channel", "int4_g128", "int4_g32", "mxfp4", "nvfp4", "e4m3_channel"]
HIDDEN = 2 * DEPTH * DEPTH


def _bytes(name: str) -> int:
    """The table in a format, scales along its rows."""
    return quantizer(name).format.storage_bytes((ROWS, DEPTH), (1,))


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_is_one_copy_where_look_up_and_head_have_one_format(
    analysis: Analysis, name: str
) -> None:
    (found,) = _predicted(analysis, {TABLE: name, HEAD: name})
    assert found.cost.weight_bytes == HIDDEN + _bytes(name)
    assert not found.remarks


def test_the_bytes_of_one_copy_are_those_of_arithmetic() -> None:
    elements = ROWS * DEPTH
    assert _bytes("int8_channel") == elements + 4 * ROWS  # a float32 a row
    assert _bytes("mxfp4") == elements // 2 + elements // 32
    assert _bytes("nvfp4") == elements // 2 + elements // 16 + 4


@pytest.mark.parametrize(
    ("table", "head"), [("int8_channel", "mxfp4"), ("int8_channel", ""), ("", "int8_channel")]
)
def test_two_formats_are_two_copies_and_said(analysis: Analysis, table: str, head: str) -> None:
    sites = {key: name for key, name in ((TABLE, table), (HEAD, head)) if name}
    (found,) = _predicted(analysis, sites)
    stored = [_bytes(name) if name else 2 * ROWS * DEPTH for name in (table, head)]
    assert found.cost.weight_bytes == HIDDEN + sum(stored)
    assert any(remark.startswith("table: stored once in each") for remark in found.remarks)


@pytest.mark.parametrize("device", ["h100-sxm:free", "h100-sxm:vllm"])
def test_a_format_everywhere_stores_a_tied_table_once(analysis: Analysis, device: str) -> None:
    usage = Usage(dims={"batch": 1, "sequence": 4})
    found = predict(analysis.graph, [device], ["bf16", "fp16", *FORMATS], usage=usage)
    hidden = DEPTH * DEPTH
    for one in found:
        wide = 2 * (ROWS * DEPTH + hidden)
        narrow = wide
        if one.format in FORMATS:
            square = quantizer(one.format).format.storage_bytes((DEPTH, DEPTH), (0,))
            narrow = _bytes(one.format) + square
        # A device without a kernel for the format keeps its products in 16 bits, and the table.
        assert one.cost.weight_bytes in ({narrow} if "free" in device else {narrow, wide})
        assert not any("stored once in each" in remark for remark in one.remarks)


def test_rows_of_a_narrow_table_are_less_traffic(analysis: Analysis) -> None:
    wide, narrow = (_predicted(analysis, sites)[0].cost for sites in ({}, {TABLE: "int8_channel"}))
    rows = [2 * 4 * DEPTH, quantizer("int8_channel").format.storage_bytes((4, DEPTH), (1,))]
    assert wide.traffic_bytes - narrow.traffic_bytes == rows[0] - rows[1]


@pytest.mark.parametrize("name", [*FORMATS, "int4_g32:gptq"])
def test_a_look_up_reads_the_values_that_its_head_stores(analysis: Analysis, name: str) -> None:
    path = analysis.graph.path
    assert path is not None
    chosen = {TABLE: quantizer(name), HEAD: quantizer(name)}
    evaluator = build_evaluator(
        analysis,
        Data(source=str(path.with_name("d.npz")), calibration=8, search=8, report=8),
        analysis.sites_with(chosen),
        tuple(chosen.items()),
    )
    bound = evaluator.bound(Assignment.of(chosen))
    table = torch.from_numpy(analysis.graph.initializers["table"].numpy().copy())
    stored = bound[TABLE](table)
    assert torch.equal(stored, bound[HEAD](table.T.contiguous()).T)
    assert not torch.equal(stored, table)


def test_a_format_everywhere_is_emulated_as_it_is_priced(analysis: Analysis) -> None:
    chosen = uniform_assignment(analysis.regions, "int8_channel", analysis.ties).as_dict()
    assert chosen[TABLE] == chosen[HEAD] == quantizer("int8_channel")
    kept = uniform_assignment(analysis.regions, "w4a16", analysis.ties).as_dict()
    assert TABLE not in kept  # a scheme leaves head and table in 16 bits
