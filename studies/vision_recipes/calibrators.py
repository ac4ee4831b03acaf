"""ONNX Runtime's own post-training quantization, with each of its calibrators."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from studies.vision_recipes.attention import PRODUCTS, attends
from studies.vision_recipes.tasks import input_of

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


BINS = 512
"""Of histograms of the entropy calibrator. It merges them into 128, which is how many it counts
unasked, too: then the whole range is all that it tries, and its file is that of `minmax`. No
option of `quantize_static` reaches them."""


class Crops(CalibrationDataReader):  # type: ignore[misc]
    """Calibration crops one by one."""

    def __init__(self, name: str, images: NDArray[Any]) -> None:
        self._feeds: Iterator[dict[str, NDArray[Any]]] = iter(
            {name: images[place : place + 1]} for place in range(len(images))
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next feeds; None behind the last."""
        return next(self._feeds, None)


def quantized(work: Path, method: str, out: Path) -> float:
    """Writes a task's network with 8-bit weights by channel and activations; CPU seconds."""
    started = time.process_time()
    prepared = out.with_suffix(".prepared")
    quant_pre_process(work / "model.onnx", prepared, skip_symbolic_shape=True)
    images = np.load(work / "data.npz")["calibration"]
    chosen: dict[str, Any] = {}
    if attends(onnx.load(work / "model.onnx").graph):
        chosen["op_types_to_quantize"] = PRODUCTS
        chosen["extra_options"] = {"OpTypesToExcludeOutputQuantization": PRODUCTS}
    # The package's name `quantize` is a function, so that its module cannot be named.
    with mock.patch.dict(quantize_static.__globals__, create_calibrator=_finer):
        quantize_static(
            prepared, out, Crops(input_of(prepared), images), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method], **chosen,
        )  # fmt: skip
    prepared.unlink()
    return time.process_time() - started


def _finer(
    *given: object,
    calibrate_method: CalibrationMethod,
    extra_options: dict[str, object],
    **named: object,
) -> object:
    """ONNX Runtime's calibrator, the one of entropy with something to choose from."""
    if calibrate_method == CalibrationMethod.Entropy:
        extra_options = {**extra_options, "num_bins": BINS}
    return create_calibrator(
        *given, calibrate_method=calibrate_method, extra_options=extra_options, **named
    )
