"""A drafted space names what the model needs and parses."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import dse
from dse.errors import SpaceError
from dse.model import open_model
from dse.space.check import summarised
from dse.space.init import Draft, space_text
from dse.space.load import parse_space
from dse.space.schema import Mode, Rule, Target

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, sequence, 4] x, float[batch, rest, 4] cache)
  => (float[batch, sequence, 4] y, float[batch, total, 4] kept)
<float[4, 4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}>
{ y = MatMul(x, w)  kept = Identity(cache) }
"""


def test_a_draft_binds_each_size_once_whatever_sums_of_them_the_inputs_have(
    tmp_path: Path,
) -> None:
    model = onnx.parser.parse_model(TEXT)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "past + sequence"
    onnx.save(model, tmp_path / "m.onnx")
    opened = open_model("m.onnx", folder=tmp_path)
    space = parse_space(space_text(opened, "m.onnx", Draft(data="d.npz")), origin="draft")
    assert set(space.scenario.phases["call"].dims) == {"batch", "sequence", "past"}
    assert space.model == "m.onnx"
    assert space.data.source == "d.npz"


BLOCKS = ["w_q8_0", "w_q6_k", "w_q5_k", "w_q4_k"]
"""Of llama.cpp, for rows of 256."""


@pytest.mark.parametrize(
    ("device", "runtime", "offered"),
    [
        ("ethos-u55", "vela", ["w8a8_int8_static", "int8"]),
        ("b200-sxm", "vllm", ["bf16", "w8a8_fp8_dynamic", "w4a16", "w4a4_nvfp4"]),
        ("h100-sxm", "vllm", ["bf16", "w8a8_fp8_dynamic", "w8a8_int8", "w4a16"]),
        ("t4", "torch-eager", ["fp16", "w8a8_int8"]),  # no unit of Turing multiplies bf16
        ("h100-sxm", "llama-cpp", ["bf16", *BLOCKS]),  # its kernels are of blocks
        ("m4-max", "llama-cpp", ["bf16", *BLOCKS]),  # Metal has them, too
        ("xeon-8480", "llama-cpp", ["bf16", *BLOCKS]),
        ("cpu-avx2", "free", ["fp32", "w8a8_int8"]),  # multiplies int8 and fp32
        ("cpu-avx2", "torch-eager", ["fp32", "w8a8_int8"]),  # which runs fp32 alone there
        ("tpu-v1", "free", ["w8a8_int8_static", "w8a8_int8", "int8"]),  # its array has no floats
    ],
)
def test_candidates_are_what_the_target_runs_natively(
    tmp_path: Path, device: str, runtime: str, offered: list[str]
) -> None:
    _, (hidden, head) = _drafted(tmp_path, Target(device=device, runtime=runtime))
    assert _names(hidden) == offered
    # A head stays in 16 bits where there are 16-bit floats and look-ups have a table of their own.
    wide = [name for name in offered if name in ("bf16", "fp16", "fp32")]
    assert _names(head) == (offered if runtime == "llama-cpp" else wide or offered)


@pytest.mark.parametrize(
    ("device", "runtime", "offered"),
    [
        ("zen4-2c", "litert", True),
        ("hexagon-x-elite", "qnn", True),
        ("edge-npu", "free", True),  # has int4 multipliers
        ("zen4-2c", "onnxruntime-cpu", False),  # multiplies 8 bits or floats
        ("ethos-u55", "vela", False),  # its compiler refuses tensors of 4 bits
        ("h100-sxm", "vllm", False),
    ],
)
def test_weights_of_4_bits_stand_beside_8_bit_activations_where_kernels_and_files_have_both(
    tmp_path: Path, device: str, runtime: str, offered: bool
) -> None:
    _, (hidden, _) = _drafted(tmp_path, Target(device=device, runtime=runtime))
    (*found,) = (use for use in hidden.use if isinstance(use, Mode) and use.activation)
    assert [(use.weight, use.activation) for use in found] == (
        [("int4a@channel/fp32:gptq", "uint8:static")] if offered else []
    )


@pytest.mark.parametrize(
    ("device", "runtime", "tried"),
    [
        ("zen4-2c", "litert", ("absmax", "mse", "percentile99.999")),
        ("ethos-u55", "vela", ("absmax", "mse", "percentile99.999")),
        ("h100-sxm", "vllm", ()),  # scales of a token, and floats
    ],
)
def test_a_draft_tries_ranges_where_scales_of_activations_are_static_integers(
    tmp_path: Path, device: str, runtime: str, tried: tuple[str, ...]
) -> None:
    text, _ = _drafted(tmp_path, Target(device=device, runtime=runtime))
    assert parse_space(text, origin="draft").ranges == tried


def test_candidates_of_a_program_have_ranges_tried_as_a_draft_has(tmp_path: Path) -> None:
    _drafted(tmp_path, Target(device="h100-sxm", runtime="vllm"))
    x = np.random.default_rng(0).normal(size=(48, 256)).astype(np.float32)
    dse.search(
        tmp_path / "m.onnx", ["bf16", "w8a8_int8_static"], data={"x": x},
        targets=["zen4-2c:litert"], trials=3, out=tmp_path / "run",
    )  # fmt: skip
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["ranges"]) == {"absmax", "mse", "percentile99.999"}


def test_rows_that_are_no_super_blocks_have_blocks_of_32(tmp_path: Path) -> None:
    """576 columns: SmolLM2's, for which llama.cpp itself falls back from K-quants."""
    target = Target(device="xeon-8480", runtime="llama-cpp")
    _, (hidden, _) = _drafted(tmp_path, target, width=576)
    assert _names(hidden) == ["bf16", "w_q8_0", "w_q5_1", "w_q5_0", "w_iq4_nl"]


GATED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 256] x) => (float[batch, 256] y)
{
  a = MatMul(x, g)  s = Sigmoid(a)  act = Mul(a, s)
  b = MatMul(x, u)  both = Mul(act, b)  z = MatMul(both, d)  y = Add(x, z)
}
"""


@pytest.mark.parametrize(
    ("runtimes", "roles"),
    [
        (["llama-cpp"], ["gate", "up", "down"]),
        # vLLM multiplies gate and up as one product.
        (["vllm"], ["gate_up", "down"]),
        (["llama-cpp", "vllm"], ["gate_up", "down"]),
        # Its choices quantize the one activation that both read.
        (["onnxruntime"], ["gate_up", "down"]),
    ],
)
def test_matrices_are_decided_one_by_one_where_no_target_executes_them_as_one(
    tmp_path: Path, runtimes: list[str], roles: list[str]
) -> None:
    _written(GATED, tmp_path, g=(256, 512), u=(256, 512), d=(512, 256))
    found = [Target(device="h100-sxm", runtime=runtime, name=runtime) for runtime in runtimes]
    opened = open_model("m.onnx", folder=tmp_path)
    text = space_text(opened, "m.onnx", Draft(data="d.npz", targets=tuple(found)))
    space = parse_space(text, origin="draft")
    assert [rule.match.role for rule in space.candidates] == roles
    design = summarised(space, origin="draft", folder=tmp_path)
    assert sorted(one.role for one in design.problem.variables) == sorted(roles)


def test_a_runtime_that_fuses_refuses_matrices_apart(tmp_path: Path) -> None:
    _written(GATED, tmp_path, g=(256, 512), u=(256, 512), d=(512, 256))
    opened = open_model("m.onnx", folder=tmp_path)
    text = space_text(opened, "m.onnx", Draft(data="d.npz"))
    space = parse_space(f"matrices: apart\n{text}", origin="draft")
    with pytest.raises(SpaceError, match=r"matrices: vllm executes .* expected 'fused'"):
        summarised(space, origin="draft", folder=tmp_path)


APART = "none is native on every target: {} have their own"


@pytest.mark.parametrize(
    ("targets", "offered", "heads"),
    [
        # int8 is common to both.
        ([("ethos-u55", "vela"), ("h100-sxm", "vllm")], ["w8a8_int8_static", "int8"], None),
        ([("cpu-avx2", "torch-eager"), ("h100-sxm", "vllm")],
         ["fp32", "w8a8_int8", "bf16", "w8a8_fp8_dynamic", "w4a16"], ["fp32", "bf16"]),
        ([("ethos-u55", "vela"), ("m4-max", "llama-cpp")],
         ["w8a8_int8_static", "int8", "bf16", *BLOCKS],
         ["w8a8_int8_static", "int8", "bf16", *BLOCKS]),
    ],
)  # fmt: skip
def test_targets_that_share_no_choice_have_their_own(
    tmp_path: Path,
    targets: list[tuple[str, str]],
    offered: list[str],
    heads: list[str] | None,
) -> None:
    found = [Target(device=device, runtime=runtime) for device, runtime in targets]
    text, (hidden, head) = _drafted(tmp_path, *found)
    assert _names(hidden) == offered
    assert _names(head) == (heads or offered)
    said = APART.format(" and ".join(":".join(pair) for pair in targets))
    assert text.count(said) == (2 if heads else 0)


def _names(rule: Rule) -> list[str]:
    return [use if isinstance(use, str) else use.name for use in rule.use]


def _drafted(tmp_path: Path, *targets: Target, width: int = 256) -> tuple[str, tuple[Rule, ...]]:
    """A draft of two products, and its candidates."""
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[batch, {width}] x) => (float[batch, 512] y)
    {{ h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }}
    """
    _written(text, tmp_path, w=(width, 256), v=(256, 512))
    draft = Draft(data="d.npz", targets=targets)
    text = space_text(open_model("m.onnx", folder=tmp_path), "m.onnx", draft)
    return text, parse_space(text, origin="draft").candidates


def _written(text: str, folder: Path, **weights: tuple[int, int]) -> None:
    """`m.onnx` with weights of these shapes."""
    model = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        data = np.zeros(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    onnx.save(model, folder / "m.onnx")
