"""docs/extend.md: every "Add a ..." as it stands, and that what it adds is really there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

import dse
from dse.errors import ExportError
from dse.execute.operators.table import OPERATORS
from dse.execute.program.program import Program
from dse.explore.study.methods import METHODS, search_method
from dse.export import EXPORTERS, deliver
from dse.graph.onnx.load import load
from hwmodels.estimators.registry import ESTIMATORS
from tests.export.recipes import mlp_recipe

DOCUMENT = Path("docs/extend.md")
LINES = 20
BLOCK = re.compile(r"```(python|yaml)\n(.*?)```", re.DOTALL)
TABLES = (OPERATORS, METHODS, EXPORTERS, ESTIMATORS)


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, object]]]:
    """The folder and the names that the document leaves behind."""
    blocks = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("document")
    names: dict[str, object] = {"__name__": "document"}
    before = [dict(table) for table in TABLES]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, text in blocks:
            if kind == "yaml":
                (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
            else:
                exec(compile(text, str(DOCUMENT), "exec"), names)
        yield folder, names
    for table, content in zip(TABLES, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(content)  # type: ignore[attr-defined]


def test_each_of_the_seven_takes_twenty_lines_at_most() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    assert [part.splitlines()[0] for part in sections] == [
        "Device", "Runtime", "Number format", "Estimator", "ONNX operator", "Exporter",
        "Search method",
    ]  # fmt: skip
    for part in sections:
        (_, first), *_ = BLOCK.findall(part)
        filled = [line for line in first.splitlines() if line.strip()]
        assert len(filled) <= LINES, part.splitlines()[0]


def test_the_device_runs_what_its_runtime_has(added: tuple[Path, dict[str, object]]) -> None:
    folder, names = added
    net = names["net"]
    assert isinstance(net, dse.LoadedModel)
    device = str(folder / "npu.yaml")
    native = net.predict(device, "int8", dims={"batch": 1})
    assert native.runtime == "acme"
    assert native.native_share > 0.9
    assert net.predict(device, "bf16", dims={"batch": 1}).native_share == 0
    assert net.predict(f"{device}:{folder / 'acme.yaml'}", "int8", dims={"batch": 1}) == native


def test_the_estimator_prices_the_device_that_names_it(
    added: tuple[Path, dict[str, object]],
) -> None:
    _, names = added
    net = names["net"]
    assert isinstance(net, dse.LoadedModel)
    ideal = net.predict(names["h100"], dims={"batch": 64}).cost  # type: ignore[arg-type]
    ours = net.predict("h100-sxm", dims={"batch": 64}).cost
    assert 0.2 < ideal.latency_s / ours.latency_s < 1
    assert ideal.low_s == ideal.high_s


def test_the_operator_computes_what_onnx_says(
    added: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    size = helper.make_tensor("size", onnx.TensorProto.INT64, [], [10])
    graph = helper.make_graph(
        [helper.make_node("HannWindow", ["size"], ["w"], periodic=0),
         helper.make_node("Mul", ["x", "w"], ["y"])],
        "window",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [10])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [10])],
        [size],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "window.onnx")
    x = np.linspace(1, 2, 10, dtype=np.float32)
    found = Program(load(tmp_path / "window.onnx")).run({"x": torch.from_numpy(x)}).outputs["y"]
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_the_exporter_writes_or_refuses(
    added: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    recipe = mlp_recipe(tmp_path, "int4_channel", "int8:static")
    deliver(recipe, "widths", tmp_path / "widths.json", verify=True)
    assert set(json.loads((tmp_path / "widths.json").read_text()).values()) == {4, 8}
    with pytest.raises(ExportError, match=r"e4m3_channel at .*: is no integer; int8_channel is"):
        deliver(mlp_recipe(tmp_path, "e4m3_channel", None), "widths", tmp_path / "other.json")


def test_the_search_methods_search(added: tuple[Path, dict[str, object]]) -> None:
    _, names = added
    front = names["front"]
    assert isinstance(front, dse.Front)
    assert len(front)
    assert search_method("annealed", origin="here", folder=Path()) is names["annealed"]
