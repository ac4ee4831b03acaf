"""The embedded models are as good, as small and as clean as their cards say."""

from __future__ import annotations

import lzma
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from dse import zoo
from dse.zoo import held_out
from dse.zoo.shapes import LLAMA_SHAPES

MEGABYTE = 10**6
EMBEDDED = [model.name for model in zoo.CATALOGUE.values() if model.embedded]
LIMITS = {"byte-gpt": 17, "fashion-resnet": 4, "llama-3-8b": 2, "llama-3-70b": 2}


def logits(name: str, split: zoo.Split) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(zoo.resolve(name).path))
    return session.run(None, dict(split.inputs))[0].astype(np.float64)


def test_byte_gpt_predicts_unseen_text_far_better_than_xz() -> None:
    split = zoo.splits("byte-gpt", limits={"report": 24}).report
    values = logits("byte-gpt", split)
    values -= np.logaddexp.reduce(values, axis=-1, keepdims=True)
    assert split.labels is not None
    bits = -np.take_along_axis(values, split.labels[..., None], -1).mean() / np.log(2)
    text = b"".join(held_out.texts(held_out.REPORT).values())
    packed = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    # The windows start without context, xz has the whole text: the true gap is larger.
    assert bits < 0.8 * packed


def test_byte_gpt_gains_from_context() -> None:
    split = zoo.splits("byte-gpt", limits={"report": 24}).report
    values = logits("byte-gpt", split)
    values -= np.logaddexp.reduce(values, axis=-1, keepdims=True)
    assert split.labels is not None
    loss = -np.take_along_axis(values, split.labels[..., None], -1)[..., 0]
    assert loss[:, 128:].mean() < loss[:, :32].mean() - 0.2


def test_fashion_resnet_reads_the_shipped_images() -> None:
    splits = zoo.splits("fashion-resnet")
    right = [
        logits("fashion-resnet", split).argmax(1) == split.labels
        for split in (splits.search, splits.report)
    ]
    assert len(np.concatenate(right)) == 2000
    assert np.concatenate(right).mean() >= 0.94


@pytest.mark.parametrize("name", EMBEDDED)
def test_graph_is_valid_small_and_named(name: str) -> None:
    path = zoo.resolve(name).path
    model = onnx.load(path, load_external_data=False)
    names = [node.name for node in model.graph.node]
    assert path.stat().st_size <= LIMITS[name] * MEGABYTE
    assert all(names)
    assert len(set(names)) == len(names)
    assert "Identity" not in {node.op_type for node in model.graph.node}
    assert zoo.resolve(name).card.read_text().startswith(f"# {name}")
    if zoo.CATALOGUE[name].kind != "shape":
        onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("shape", [(1, 5), (3, 200)])
def test_byte_gpt_takes_any_batch_and_sequence(shape: tuple[int, int]) -> None:
    split = zoo.Split(inputs={"tokens": np.zeros(shape, np.int64)}, labels=None, kind="tokens")
    assert logits("byte-gpt", split).shape == (*shape, 256)


@pytest.mark.parametrize(("name", "layers"), [("llama-3-8b", 32), ("llama-3-70b", 80)])
def test_llama_shape_has_all_products_and_no_weights(name: str, layers: int) -> None:
    model = onnx.load(zoo.resolve(name).path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["MatMul"] == layers * (7 + 2) + 1
    weights = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert sum(int(np.prod(t.dims)) for t in weights) == LLAMA_SHAPES[name].parameters
    assert len(model.graph.input) == 1 + 2 * layers


def test_llama_shape_names_its_dimensions() -> None:
    model = onnx.load(zoo.resolve("llama-3-8b").path, load_external_data=False)
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert dims["tokens"] == ["batch", "sequence"]
    assert dims["past_key_values.31.value"] == ["batch", 8, "past", 128]
    assert dims["present.31.value"] == ["batch", 8, "past + sequence", 128]
    assert dims["present.31.key"] == dims["present.31.value"]
    assert dims["logits"] == ["batch", "sequence", 128256]
