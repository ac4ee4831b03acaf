"""One block with `repeat` beside a graph that holds the copies written out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx
import onnx.parser
import pytest

from dse.errors import GraphError
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.predict import Prediction, Usage, predict
from tests.archives import opened

ARCHIVE = Path(__file__).parents[1] / "data" / "graphs.tar.xz"
DECODE, PREFILL = "llama3_1b-decode-b8-s1-l1024", "llama3_1b-prefill-b1-s1024-l1024"
COPIES = 3
BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 256] x, float[1, 256] scale) => (float[batch, 256] y, float[batch, 64] seen)
{
    [norm] n = LayerNormalization (x, gain)
    [up] u = MatMul (n, wide)
    [act] a = Relu (u)
    [down] d = MatMul (a, narrow)
    [scaled] s = Mul (d, scale)
    [add] y = Add (s, x)
    [look] seen = MatMul (y, probe)
}
"""
WEIGHTS = {"gain": (256,), "wide": (256, 1024), "narrow": (1024, 256), "probe": (256, 64)}


def _written_out(model: onnx.ModelProto, feeds: tuple[str, str], shared: Collection[str]) -> None:
    """Makes a block a chain of `COPIES`, node by node: its output feeds the next one's input."""
    graph = model.graph
    block = onnx.GraphProto()
    block.CopyFrom(graph)
    del graph.node[:], graph.input[:], graph.output[:], graph.initializer[:], graph.value_info[:]
    for index in range(COPIES):
        before = f"{feeds[0]}.{index - 1}"

        def named(name: str, index: int = index, before: str = before) -> str:
            if index and name == feeds[1]:
                return before
            return name if not name or name in shared else f"{name}.{index}"

        for node in block.node:
            new = graph.node.add()
            new.CopyFrom(node)
            new.name = f"{node.name}.{index}"
            new.input[:] = [named(name) for name in node.input]
            new.output[:] = [named(name) for name in node.output]
        for listed, place in (
            (block.input, graph.input), (block.output, graph.output),
            (block.initializer, graph.initializer),
        ):  # fmt: skip
            for one in listed:
                if named(one.name) not in {known.name for known in (*place, *graph.input)} | {
                    before
                }:
                    place.add().CopyFrom(one)
                    place[-1].name = named(one.name)
        if index < COPIES - 1:
            kept = [one for one in graph.output if one.name != f"{feeds[0]}.{index}"]
            del graph.output[:]
            graph.output.extend(kept)


def _both(folder: Path, name: str) -> tuple[Graph, Graph]:
    """A measured block, and three of them."""
    with opened(ARCHIVE) as archive:
        archive.extract(f"graphs/{name}.onnx", folder)
    path = folder / "graphs" / f"{name}.onnx"
    model = onnx.load(path, load_external_data=False)
    _written_out(model, ("add_5", "x"), ("cos", "sin"))
    (folder / "chain.onnx").write_bytes(model.SerializeToString())
    return load(path), load(folder / "chain.onnx")


def _small(folder: Path) -> tuple[Graph, Graph]:
    """A block whose second output is read by nobody, and three of them."""
    model = onnx.parser.parse_model(BLOCK)
    for weight, shape in WEIGHTS.items():
        size = 1
        for one in shape:
            size *= one
        tensor = onnx.helper.make_tensor(weight, onnx.TensorProto.FLOAT, shape, [0.5] * size)
        model.graph.initializer.append(tensor)
    onnx.save(model, folder / "block.onnx")
    _written_out(model, ("y", "x"), ("scale",))
    onnx.save(model, folder / "chain.onnx")
    return load(folder / "block.onnx"), load(folder / "chain.onnx")


def _priced(graph: Graph, where: str, name: str, **usage: object) -> Prediction:
    (found,) = predict(graph, [where], [name], usage=Usage(**{"dims": {}, **usage}))  # type: ignore[arg-type]
    return found


def _assert_equal(one: Prediction, other: Prediction) -> None:
    for column in ("latency_s", "low_s", "high_s", "energy_j", "traffic_bytes"):
        assert getattr(one.cost, column) == pytest.approx(getattr(other.cost, column), rel=1e-9)
    for column in ("weight_bytes", "kv_bytes", "peak_bytes", "status", "bound"):
        assert getattr(one.cost, column) == getattr(other.cost, column)


@pytest.mark.parametrize("where", ["h100-sxm:torch-eager", "h100-sxm:vllm", "b200-sxm:free"])
@pytest.mark.parametrize("name", [DECODE, PREFILL])
def test_a_block_three_times_is_three_blocks(tmp_path: Path, where: str, name: str) -> None:
    block, chain = _both(tmp_path, name)
    for scheme in ("bf16", "w8a8_fp8_dynamic"):
        repeated = _priced(block, where, scheme, repeat=COPIES)
        _assert_equal(repeated, _priced(chain, where, scheme))
        alone = _priced(block, where, scheme)
        assert repeated.cost.weight_bytes == 3 * alone.cost.weight_bytes
        assert repeated.cost.kv_bytes == 3 * alone.cost.kv_bytes
        assert repeated.cost.latency_s == pytest.approx(3 * alone.cost.latency_s, rel=0.02)
        assert repeated.cost.peak_bytes < 1.2 * alone.cost.peak_bytes
    assert "3 copies in a chain: add_5 into x; sin shared by all" in repeated.remarks


@pytest.mark.parametrize(
    ("where", "scheme"),
    [("h100-sxm:torch-compile", "bf16"), ("h100-sxm:tensorrt-llm", "w8a8_fp8"),
     ("ethos-u55", "int8")],
)  # fmt: skip
def test_outputs_that_no_copy_reads_are_kept_of_all(
    tmp_path: Path, where: str, scheme: str
) -> None:
    """Also where tensors are stored in one format, which the next copy's products decide."""
    block, chain = _small(tmp_path)
    repeated = _priced(block, where, scheme, dims={"batch": 64}, repeat=COPIES)
    _assert_equal(repeated, _priced(chain, where, scheme, dims={"batch": 64}))
    assert (
        "3 copies in a chain: y into x; scale shared by all; seen of every copy kept to the end"
        in repeated.remarks
    )


def test_regions_are_those_of_the_block_with_all_copies(tmp_path: Path) -> None:
    block, _ = _small(tmp_path)
    alone = _priced(block, "h100-sxm", "bf16", dims={"batch": 64})
    repeated = _priced(block, "h100-sxm", "bf16", dims={"batch": 64}, repeat=COPIES)
    assert [name for name, _ in repeated.cost.parts] == [name for name, _ in alone.cost.parts]
    assert sum(one.latency_s for _, one in repeated.cost.parts) == pytest.approx(
        repeated.cost.latency_s
    )


def test_several_gpus_share_every_copy(tmp_path: Path) -> None:
    block, chain = _both(tmp_path, PREFILL)
    _assert_equal(
        _priced(block, "h100-sxm:vllm", "bf16", gpus=4, repeat=COPIES),
        _priced(chain, "h100-sxm:vllm", "bf16", gpus=4),
    )


def test_a_model_that_cannot_follow_itself_is_refused(tmp_path: Path) -> None:
    with opened(ARCHIVE) as archive:
        archive.extract("graphs/resnet18-b8.onnx", tmp_path)
    graph = load(tmp_path / "graphs" / "resnet18-b8.onnx")
    with pytest.raises(GraphError, match=r"no output has the shape and type of an input: x .*3"):
        _priced(graph, "h100-sxm", "bf16", repeat=2)
