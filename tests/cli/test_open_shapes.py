"""Models whose inputs have no shape, as ONNX Runtime runs them: recurrences, voice activity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import Dse

HIDDEN = 8
SAMPLES = 40


def _value(name: str, shape: list[int | str | None] | None, kind: int) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, helper.make_tensor_type_proto(kind, shape))


def _weights(sizes: dict[str, tuple[int, ...]]) -> list[onnx.TensorProto]:
    random = np.random.default_rng(0)
    return [
        numpy_helper.from_array((0.3 * random.standard_normal(size)).astype(np.float32), name)
        for name, size in sizes.items()
    ]


def _axes(*names: str) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array([int(name[1:])]), name) for name in names]


def _branch(name: str, width: int) -> onnx.GraphProto:
    """A convolution over samples of sound, a recurrence over its mean, one probability."""
    n = helper.make_node
    prefix = f"{name}_"
    nodes = [
        n("Unsqueeze", ["input", "a1"], [f"{prefix}x"]),
        n("Conv", [f"{prefix}x", f"{prefix}conv"], [f"{prefix}c"], strides=[width]),
        n("Relu", [f"{prefix}c"], [f"{prefix}r"]),
        n("ReduceMean", [f"{prefix}r"], [f"{prefix}m"], axes=[2], keepdims=0),
        n("Unsqueeze", [f"{prefix}m", "a0"], [f"{prefix}s"]),
        n("Split", ["state"], [f"{prefix}h", f"{prefix}k"], axis=0),
        n("LSTM", [f"{prefix}s", f"{prefix}W", f"{prefix}R", "", "", f"{prefix}h", f"{prefix}k"],
          [f"{prefix}y", f"{prefix}hn", f"{prefix}cn"], hidden_size=HIDDEN),
        n("Concat", [f"{prefix}hn", f"{prefix}cn"], [f"{prefix}st"], axis=0),
        n("Squeeze", [f"{prefix}hn", "a0"], [f"{prefix}q"]),
        n("MatMul", [f"{prefix}q", f"{prefix}fc"], [f"{prefix}z"]),
        n("Sigmoid", [f"{prefix}z"], [f"{prefix}p"]),
    ]  # fmt: skip
    weights = _weights(
        {
            f"{prefix}conv": (16, 1, width),
            f"{prefix}W": (1, 4 * HIDDEN, 16),
            f"{prefix}R": (1, 4 * HIDDEN, HIDDEN),
            f"{prefix}fc": (HIDDEN, 1),
        }
    )
    outputs = [_value(f"{prefix}p", None, 1), _value(f"{prefix}st", None, 1)]
    return helper.make_graph(nodes, name, [], outputs, weights)


@pytest.fixture(scope="module", params=["free sizes", "no shape"])
def voice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice-activity detector: sound, a state and a sampling rate that picks the branch."""
    shapes: dict[str, list[int | str | None] | None] = {
        "input": [None, None], "state": [2, None, HIDDEN], "sr": [],
    }  # fmt: skip
    if request.param == "no shape":
        shapes = dict.fromkeys(shapes)
    kinds = {"input": TensorProto.FLOAT, "state": TensorProto.FLOAT, "sr": TensorProto.INT64}
    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["sr", "rate"], ["is_16k"]),
            helper.make_node(
                "If", ["is_16k"], ["output", "stateN"], name="rates",
                then_branch=_branch("high", 32), else_branch=_branch("low", 16),
            ),
        ],
        "vad",
        [_value(name, shape, kinds[name]) for name, shape in shapes.items()],
        [_value("output", None, 1), _value("stateN", None, 1)],
        [numpy_helper.from_array(np.array(16000), "rate"), *_axes("a0", "a1")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    folder = tmp_path_factory.mktemp("voice")
    onnx.save(model, folder / "vad.onnx")
    sound = np.random.default_rng(1).standard_normal((SAMPLES, 256)).astype(np.float32)
    state = np.zeros((2, SAMPLES, HIDDEN), np.float32)
    np.savez(folder / "sound.npz", input=sound, state=state, sr=np.array(16000))
    return folder


def test_voice_activity_is_measured_at_its_probability(voice: Path, dse: Dse) -> None:
    data = ("--data", voice / "sound.npz")
    found = dse("evaluate", voice / "vad.onnx", "--format", "int2", *data)
    assert found.code == 0, found.err
    assert "output output: probabilities" in found.out
    assert "stateN is left out" in found.err
    session = onnxruntime.InferenceSession(voice / "vad.onnx")
    with np.load(voice / "sound.npz") as arrays:
        (p, _) = session.run(None, dict(arrays))
    constant = float(p.mean())
    wanted = p * np.log(p / constant) + (1 - p) * np.log((1 - p) / (1 - constant))
    shown = float(found.out.split("that of a constant answer: ")[1].split()[0])
    assert shown == pytest.approx(float(wanted.mean()), rel=1.0)  # of 16 of the 40 samples


def test_voice_activity_is_drafted_checked_searched_and_exported(
    voice: Path, tmp_path: Path, dse: Dse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(voice)
    space, run = tmp_path / "s.yaml", tmp_path / "run"
    drafted = dse("init", "vad.onnx", "-o", space, "--data", "sound.npz", "--dim", "rates=0")
    assert drafted.code == 0, drafted.err
    text = yaml.safe_load(space.read_text())
    dims = text["scenario"]["phases"]["call"]["dims"]
    assert dims["input.1"] == 256
    assert (tmp_path / text["data"]["source"]).resolve() == voice / "sound.npz"
    assert dims["rates"] == 0
    text["search"]["trials"] = 2
    space.write_text(yaml.safe_dump(text))
    assert dse("check", space).code == 0
    searched = dse("search", space, "--out", run)
    assert searched.code == 0, searched.err
    recipe = dse("export", run, "--to", "recipe", "-o", tmp_path / "recipe")
    assert recipe.code == 0, recipe.err


def test_prices_take_ranks_and_sizes_from_the_command_line(voice: Path, dse: Dse) -> None:
    price = ("predict", voice / "vad.onnx", "--device", "h100-sxm", "--format", "bf16", "--json")
    sizes = {"input.0": 1, "input.1": 256, "state.1": 1}
    asked = dse(*price)
    assert asked.code == 2
    if "sr.rank" in asked.err:  # the file gives no shapes
        sizes |= {"state.0": 2, "state.2": HIDDEN, "sr.rank": 0}
    found = dse(*price, *(part for name, n in sizes.items() for part in ("--dim", f"{name}={n}")))
    assert found.code == 0, found.err
    weights = sum(16 * w + 4 * HIDDEN * (16 + HIDDEN) + HIDDEN for w in (32, 16))
    assert json.loads(found.out)[0]["weight_bytes"] == 2 * weights


def test_an_input_without_a_shape_is_asked_for(tmp_path: Path, dse: Dse) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [_value("x", None, TensorProto.FLOAT)],
        [_value("y", None, TensorProto.FLOAT)],
        _weights({"w": (32, 32)}),
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    price = ("predict", path, "--device", "h100-sxm", "--format", "bf16")
    asked = dse(*price)
    assert asked.code == 2
    assert "--dim x.rank=N" in asked.err
    assert dse(*price, "--dim", "x.0=4", "--dim", "x.1=32").code == 0
    assert "--dim x.0=N --dim x.1=N" in dse(*price, "--dim", "x.rank=2").err
    assert dse(*price, "--dim", "x.rank=99").code == 2
