"""Exporters write what the modes of their runtimes take."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from dse.export.exporters import EXPORTERS
from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.legality import find_mode
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.work import OperandName
from tests.export.recipes import mlp_recipe

SIZES = {"M": 64, "K": 64, "N": 64}
TENSORRT = tuple(product(
    ("int8_channel", "int8", "int8a", "int4_g32", "int4_channel", "e4m3_tensor", "e4m3_channel",
     "e5m2_tensor", "int3_g32", "nf4_g64"),
    (None, "int8:static", "uint8:static", "e4m3_tensor:static", "int8_token"),
))  # fmt: skip
LITERT = tuple(product(
    ("int8_channel", "int8", "int4_channel", "int4_g32", "e4m3_tensor", "int3_channel"),
    ("int8:static", "uint8:static", "e4m3_tensor:static"),
))  # fmt: skip


@pytest.mark.parametrize(("weight", "activation"), LITERT)
def test_litert_is_written_exactly_what_it_has_a_mode_for(
    weight: str, activation: str, tmp_path: Path
) -> None:
    has_mode = _has_mode("litert", "xeon-8480", weight, activation)
    assert _is_written("litert", weight, activation, tmp_path) == has_mode


@pytest.mark.parametrize(("weight", "activation"), TENSORRT)
def test_tensorrt_is_written_whatever_it_has_a_mode_for(
    weight: str, activation: str | None, tmp_path: Path
) -> None:
    # It also takes pairs that no kernel multiplies as they are, and dequantizes them.
    if _has_mode("tensorrt", "b200-sxm", weight, activation):
        assert _is_written("tensorrt", weight, activation, tmp_path)


def test_tensorrt_multiplies_no_zero_points() -> None:
    assert _has_mode("tensorrt", "b200-sxm", "int8_channel", "int8:static")
    assert not _has_mode("tensorrt", "b200-sxm", "int8_channel", "uint8:static")


def _is_written(target: str, weight: str, activation: str | None, folder: Path) -> bool:
    return not EXPORTERS[target].can_express(mlp_recipe(folder, weight, activation))


def _has_mode(runtime: str, device: str, weight: str, activation: str | None) -> bool:
    asked: dict[OperandName, Quantizer] = {"weight": catalog.uniform(weight)}
    if activation is not None:
        asked["input"] = catalog.uniform(activation)
    found = find_mode("gemm", asked, SIZES, load_device(device), load_runtime(runtime))
    return found.mode is not None
