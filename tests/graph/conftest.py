"""Graphs as ONNX text, and the measured graphs of `tests/data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from tests.archives import opened

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
ARCHIVE = Path(__file__).parents[1] / "data" / "graphs.tar.xz"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model given as ONNX text; a graph alone gets IR version 8 and opset 17."""

    def written(text: str, name: str = "model.onnx") -> Path:
        text = text.strip()
        model = onnx.parser.parse_model(text if text.startswith("<") else HEADER + text)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return written


@pytest.fixture
def graph(write: Callable[..., Path]) -> Callable[[str], Graph]:
    """Loads a model given as ONNX text."""
    return lambda text: load(write(text))


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the 50 graphs whose latency was measured on an H100."""
    folder = tmp_path_factory.mktemp("graphs")
    with opened(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder / "graphs"


@pytest.fixture
def weighted(tmp_path: Path) -> Callable[[str], Graph]:
    """Loads a model given as ONNX text; what it declares between <> without data are weights."""

    def loaded(text: str) -> Graph:
        opsets = '<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>'
        text = text.strip()
        model = onnx.parser.parse_model(text if text.startswith("<") else f"{opsets} {text}")
        random = np.random.default_rng(0)
        for value in model.graph.value_info:
            shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            data = random.standard_normal(shape)
            if ir.DataType(value.type.tensor_type.elem_type).is_integer():
                data = (40 * data).clip(ml_dtypes.iinfo(kind).min, ml_dtypes.iinfo(kind).max)
            data = data.astype(kind)
            model.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
        onnx.save(model, tmp_path / "weighted.onnx")
        return load(tmp_path / "weighted.onnx")

    return loaded
