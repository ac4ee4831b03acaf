"""Files for LiteRT: integers code for code, operators, refusals; Vela compiles them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Check, Recipe, deliver, exporter
from dse.model import Model, open_model
from dse.space.load import parse_space
from dse.space.targeted import targeted_problem
from tests.export.litert import networks

pytest.importorskip("ai_edge_litert")

STATIC = {"weight": "int8_channel", "activation": "uint8:static"}
OUTPUTS = {**STATIC, "output": "uint8:static"}
MAKERS = {
    "mobile": networks.mobile_net, "inception": networks.inception,
    "residual": networks.pre_activation,
}  # fmt: skip
SPACE = """
model: m
data: {source: d.npz}
targets: [ethos-u55]
candidates: [{use: [w8a8_int8_static, int8:static, {name: w4, weight: int4_channel,
  activation: uint8:static}]}]
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("networks")
    found = {name: make(folder) for name, make in MAKERS.items()}
    return {**found, "resnet": open_model("zoo:fashion-resnet")}


def written(recipe: Recipe, out: Path) -> tuple[Check, ...]:
    return deliver(recipe, "litert", out, verify=True)


def operators(path: Path) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as s  # noqa: PLC0415

    names = {value: name for name, value in vars(s.BuiltinOperator).items() if name.isupper()}
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(path.read_bytes()))
    codes = [names[one.builtinCode] for one in model.operatorCodes]
    return Counter(codes[one.opcodeIndex] for one in model.subgraphs[0].operators)


@pytest.mark.parametrize(
    ("name", "formats", "integers"),
    [
        ("resnet", STATIC, 6), ("resnet", OUTPUTS, 16),
        ("mobile", STATIC, 6), ("mobile", OUTPUTS, 12),
        ("inception", STATIC, 3), ("inception", OUTPUTS, 5),
        ("mobile", {**OUTPUTS, "weight": "int8", "output": "int8:static"}, 12),
        ("inception", {**OUTPUTS, "weight": "int4_channel:uncorrected"}, 5),
        ("mobile", {**OUTPUTS, "weight": "int4_channel"}, 12),
    ],
)  # fmt: skip
def test_products_of_integers_are_code_for_code(
    name: str, formats: dict[str, str], integers: int, models: dict[str, Model], tmp_path: Path
) -> None:
    weights, products, outputs = written(
        networks.recipe(models[name], formats), tmp_path / "m.tflite"
    )[:3]
    assert weights.compared == f"{integers} integer weights"
    assert weights.difference == 0.0
    assert products.compared.split(" and ")[0].removesuffix(", code for code") == (
        f"{integers} integer products"
    )
    assert products.difference is not None
    assert products.difference <= 1
    assert outputs.difference is not None


def test_a_residual_network_runs_in_integers_where_its_sums_are_rounded(
    models: dict[str, Model], tmp_path: Path
) -> None:
    beside = {"blocks.0.add/in0", "blocks.1.add/in0", "blocks.3.add/in0", "blocks.5.add/in0",
              "pool/in0"}  # fmt: skip
    formats = {**OUTPUTS, **dict.fromkeys(beside, "uint8:static")}
    checks = written(networks.recipe(models["resnet"], formats), tmp_path / "m.tflite")
    assert checks[1].compared == "16 integer products and 7 sums and means, code for code"
    found = operators(tmp_path / "m.tflite")
    assert not found["DEQUANTIZE"]
    assert found["ADD"] == 6
    assert found["MEAN"] == 1


def chosen(model: Model, place: int) -> Recipe:
    """A point of a space of an integer target; beyond the choices, these one after the other."""
    space = parse_space(SPACE, origin="s.yaml")
    problem = targeted_problem(space, model.analysis, Path())
    counts = [len(variable.choices) for variable in problem.variables]
    mixed = place >= min(counts)
    point = [(at if mixed else place) % count for at, count in enumerate(counts)]
    return networks.assigned(model, problem.assignment(point))


@pytest.mark.parametrize(
    ("name", "place"),
    [("mobile", 0), ("mobile", 1), ("mobile", 3), ("residual", 0), ("residual", 3), ("resnet", 3)],
)
def test_a_space_of_an_integer_target_ends_with_integers_alone(
    name: str, place: int, models: dict[str, Model], tmp_path: Path
) -> None:
    products, sums, added = {"mobile": (12, 3, 2), "residual": (9, 6, 3), "resnet": (16, 7, 6)}[
        name
    ]
    checks = written(chosen(models[name], place), tmp_path / "m.tflite")
    assert checks[0].note == ""
    assert checks[1].compared == (
        f"{products} integer products and {sums} sums and means, code for code"
    )
    found = operators(tmp_path / "m.tflite")
    assert not found["DEQUANTIZE"]
    assert not found["AVERAGE_POOL_2D"]
    assert found["ADD"] == added


def test_a_bias_beyond_32_bits_keeps_its_product_in_float32(
    models: dict[str, Model], tmp_path: Path
) -> None:
    given = networks.recipe(models["inception"], OUTPUTS)
    weight = given.constant("c2/in1")
    assert weight is not None
    before = weight.clone()
    weight[0] *= 1e-20  # a channel that training has switched off
    checks = written(given, tmp_path / "m.tflite")
    weight.copy_(before)
    assert checks[0].compared == "4 integer weights"
    assert "a bias is larger than 32 bits" in checks[0].note


def test_full_precision_and_float16_run_as_they_are(
    models: dict[str, Model], tmp_path: Path
) -> None:
    for formats in ({}, {"weight": "fp16"}):
        checks = written(networks.recipe(models["inception"], formats), tmp_path / "m.tflite")
        outputs = next(check for check in checks if check.compared == "outputs")
        assert outputs.difference is not None
        assert outputs.difference < 1e-5


def test_activations_are_fused_and_images_are_padded(
    models: dict[str, Model], tmp_path: Path
) -> None:
    written(networks.recipe(models["mobile"], STATIC), tmp_path / "m.tflite")
    found = operators(tmp_path / "m.tflite")
    assert found["CONV_2D"] == 8
    assert found["DEPTHWISE_CONV_2D"] == 3
    assert not found["RELU6"]
    assert found["PAD"] == 1, "SAME pads the stem; the depthwise one of stride 2 has other pads"
    assert found["FULLY_CONNECTED"] == found["MEAN"] == 1


def test_the_file_has_the_bytes_that_formats_count(
    models: dict[str, Model], tmp_path: Path
) -> None:
    sizes = {}
    for weight in ("int8_channel", "int4_channel"):
        given = networks.recipe(models["resnet"], {**OUTPUTS, "weight": f"{weight}:uncorrected"})
        written(given, tmp_path / weight)
        sizes[weight] = (tmp_path / weight).stat().st_size
        counted = 0
        for key, one in given.assignment:
            constant, emulator = given.constant(key), given.bound[key]
            if constant is not None and isinstance(emulator, Emulator):
                counted += one.format.storage_bytes(constant.shape, emulator.axes)
        assert counted < sizes[weight] < counted + 40_000, "names, shapes, scales, biases"
    assert sizes["int8_channel"] - sizes["int4_channel"] > 300_000


@pytest.mark.parametrize("name", ["mobile", "residual", "resnet"])
@pytest.mark.parametrize("device", ["ethos-u55-128", "ethos-u85-256"])
def test_vela_puts_all_of_it_on_the_npu(
    device: str, name: str, models: dict[str, Model], tmp_path: Path
) -> None:
    pytest.importorskip("ethosu.vela")
    deliver(chosen(models[name], 0), "litert", tmp_path / "m.tflite")
    command = [sys.executable, "-m", "ethosu.vela", "--accelerator-config", device,
               "--output-dir", str(tmp_path), str(tmp_path / "m.tflite")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CPU operators = 0 " in done.stdout
    assert "NPU operators = " in done.stdout
    assert (tmp_path / "m_vela.tflite").exists()


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({**STATIC, "weight": "e4m3_channel"}, "take no weights in e4m3_channel"),
        ({**STATIC, "weight": "int4_g32"}, "scales are in float32, in one level"),
        ({**STATIC, "weight": "uint8_channel"}, "take no weights in uint8_channel"),
        ({**STATIC, "activation": "int8_token"}, "worked out while the network runs"),
        ({**STATIC, "activation": "bf16"}, "activations in float32 and integers, not bf16"),
        ({"weight": "bf16"}, "take no weights in bf16"),
        ({**STATIC, "activation": "int16:static"}, "take no activations in int16"),
    ],
)
def test_formats_without_a_kernel_are_refused_and_leave_nothing(
    formats: dict[str, str], message: str, models: dict[str, Model], tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        deliver(networks.recipe(models["inception"], formats), "litert", tmp_path / "m.tflite")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_operators_that_are_not_written_are_all_named(tmp_path: Path) -> None:
    b = networks.Builder()
    x = b.conv("grouped", "image", (8, 4, 3, 3), group=2)
    x = b.node("Sigmoid", "sigmoid", x)
    x = b.node("MaxPool", "pool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    b.node("LeakyRelu", "leaky", x)
    model = b.saved(tmp_path / "n.onnx", "leaky", ["batch", 8, networks.SIZE, networks.SIZE], 8)
    with pytest.raises(ExportError) as caught:
        deliver(networks.recipe(model, {}), "litert", tmp_path / "m.tflite")
    message = str(caught.value)
    assert "grouped: it has 2 groups of 4 channels" in message
    assert "sigmoid: Sigmoid is not written" in message
    assert "leaky: LeakyRelu is not written" in message
    assert not (tmp_path / "m.tflite").exists()


def test_a_file_that_was_changed_does_not_pass(models: dict[str, Model], tmp_path: Path) -> None:
    given = networks.recipe(models["inception"], OUTPUTS)
    out = tmp_path / "m.tflite"
    written(given, out)
    weight = given.constant("c2/in1")
    assert weight is not None
    codes = np.rint(weight.numpy() / np.abs(weight.numpy()).max((1, 2, 3), keepdims=True) * 127)
    stored = codes.astype(np.int8).transpose(0, 2, 3, 1).tobytes()
    content = out.read_bytes()
    assert stored in content
    out.write_bytes(content.replace(stored, bytes([stored[0] ^ 1]) + stored[1:]))
    with pytest.raises(ExportError, match="reads c2/in1 with a difference"):
        exporter("litert").verify(given, out)
