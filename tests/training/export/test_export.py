"""Methods in the terms of other libraries: what the files compute, and what is refused."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.training.export.exporters import EXPORTERS, exported
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.quantized import apply
from tests.training.methods import method

BF16_HEAD = {"match": {"name": "*head*"}, "roles": {"*": "bf16"}}
SIMPLE = {
    "mxfp8": load_method("mxfp8"),
    "fp8_current": load_method("fp8_current"),
    "switchback": replace(load_method("switchback"), update=method().update),
    "nvfp4 along": method(
        roles={
            "weight": "nvfp4", "activation": "nvfp4", "activation_gradient": "e2m1@g16/e4m3+fp32",
            "weight@dgrad": {"format": "nvfp4", "of": "forward"},
        },
        rules=[BF16_HEAD],
    ),
    "mixed": method(
        roles={"*": "fp32", "weight@fprop": "int4@g32/fp32", "activation@wgrad": "e5m2",
               "activation@fprop": "e4m3_token", "weight@dgrad": "e8m3"},
    ),
}  # fmt: skip


def executed(text: str) -> dict[str, Any]:
    """The names of a written file."""
    module = ModuleType("written")
    sys.modules["written"] = module  # dataclasses look their module up
    exec(compile(text, "written.py", "exec"), module.__dict__)
    return module.__dict__


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 48), nn.Linear(48, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.body(x)))
        return found


def gradients(model: nn.Module, net: Net) -> list[Tensor]:
    """Result and gradients of a step on fixed data."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(32, 64, generator=generator).requires_grad_()
    y = model(x)
    net.zero_grad()
    y.backward(1e-3 * torch.randn(32, 32, generator=generator))
    assert x.grad is not None
    return [y.detach(), x.grad, *(one.grad for one in net.parameters() if one.grad is not None)]


def pair() -> tuple[Net, Net]:
    torch.manual_seed(0)
    first = Net()
    second = Net()
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("name", SIMPLE)
def test_the_file_of_plain_torch_computes_what_the_method_does(name: str) -> None:
    ours, theirs = pair()
    written = executed(exported(SIMPLE[name], name, "torch"))
    found = gradients(written["convert"](theirs), theirs)
    for a, b in zip(gradients(apply(ours, SIMPLE[name]), ours), found, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6 * float(a.abs().max()))


def test_a_value_is_drawn_between_its_neighbours() -> None:
    """On the grid of e2m1 2.5 is 2 or 3, each half of the time."""
    found = method(roles={"activation@wgrad": "e2m1:stochastic"})
    written = executed(exported(found, "drawn", "torch"))
    grid = written["LAYERS"]["*"]["activation@wgrad"]
    torch.manual_seed(0)
    values = written["rounded"](torch.full((1, 10_000), 2.5), grid)
    assert set(values.unique().tolist()) == {2.0, 3.0}
    assert float(values.mean()) == pytest.approx(2.5, abs=0.02)


FLOAT8 = {
    "fp8_current": load_method("fp8_current"),
    "rows": method(
        roles={
            "*": "fp32", "weight": "e4m3_channel", "activation@fprop": "e4m3_token",
            "activation_gradient@dgrad": "e4m3_token",
        },
        rules=[{"match": {"name": "*head*"}, "roles": {"*": "fp32"}}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_layers_of_torchao_compute_what_the_method_does(name: str) -> None:
    """Products emulated in float32: equal up to the order of sums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that want a GPU
        pytest.importorskip("torchao.float8")
        written = executed(exported(FLOAT8[name], name, "torchao"))
        ours, theirs = pair()
        from torchao.float8 import convert_to_float8_training  # noqa: PLC0415

        emulated = replace(written["CONFIG"], emulate=True)
        converted = convert_to_float8_training(
            theirs, config=emulated, module_filter_fn=written["chosen"]
        )
        found = gradients(converted, theirs)
    kinds = {key: type(one).__name__ for key, one in theirs.named_modules()}
    assert kinds["body"] == "Float8Linear"
    assert kinds["head"] == ("Linear" if FLOAT8[name].rules else "Float8Linear")
    for a, b in zip(gradients(apply(ours, FLOAT8[name]), ours), found, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-5


def test_mxfp8_is_torchaos_setting_of_that_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchao.prototype.moe_training.config")
        written = executed(exported(load_method("mxfp8"), "mxfp8", "torchao"))
        assert written["CONFIG"].scale_calculation_mode.name == "RCEIL"
        assert not written["CONFIG"].wgrad_with_hp
        kept = method(
            roles={"weight": "e4m3@g32/e8m0-rceil", "activation@fprop": "e4m3@g32/e8m0-rceil",
                   "activation_gradient@dgrad": "e4m3@g32/e8m0-rceil"},
        )  # fmt: skip
        assert executed(exported(kept, "kept", "torchao"))["CONFIG"].wgrad_with_hp
    assert written["chosen"](nn.Linear(2, 2), "body")
    assert not written["chosen"](nn.ReLU(), "body")


@dataclass
class Made:
    """A call of a class of Transformer Engine."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def role(
    tensor_type: str = "input", *, module_type: str = "linear", name: str = "body"
) -> SimpleNamespace:
    """Transformer Engine's `QuantizerRole`."""
    return SimpleNamespace(module_type=module_type, tensor_type=tensor_type, name=name)


class Names(ModuleType):
    """A module whose every name is a class that records its call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("DType", "Format"):
            return Names(name)
        if name.startswith("k") or name in ("HYBRID", "E4M3"):
            return name
        return partial(_made, name)


def _made(name: str, *_given: object, **options: object) -> Made:
    return Made(name, options)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("", ".common", ".common.recipe", ".pytorch", ".pytorch.constants",
             ".pytorch.quantization", ".pytorch.tensor", ".pytorch.tensor.hybrid_tensor",
             ".pytorch.tensor.identity_tensor")  # fmt: skip
    for part in parts:
        name = f"transformer_engine{part}"
        monkeypatch.setitem(sys.modules, name, Names(name))


@pytest.mark.usefixtures("engine")
def test_a_factory_gives_each_tensor_the_quantizers_of_its_passes() -> None:
    """NVIDIA's recipe: rotations in wgrad alone, weights in two dimensions, gradients drawn."""
    written = executed(exported(load_method("nvfp4"), "nvfp4", "te"))
    weight = written["factory"](role("weight"))
    assert (weight.name, weight.options["with_2d_quantization"]) == ("NVFP4Quantizer", True)
    gradient = written["factory"](role("grad_output"))
    row, column = (gradient.options[f"{one}_quantizer"] for one in ("rowwise", "columnwise"))
    assert [one.options["with_rht"] for one in (row, column)] == [False, True]
    assert [one.options["stochastic_rounding"] for one in (row, column)] == [True, True]
    assert written["factory"](role(name="lm_head")).name == "IdentityQuantizer"
    assert written["factory"](role(module_type="dpa")).name == "IdentityQuantizer"
    assert written["factory"](None).name == "IdentityQuantizer"
    assert written["recipe"].options["qfactory"] is written["factory"]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp8_current", "Float8CurrentScalingQuantizer"),
        ("fp8_delayed", "DelayedScalingRequest"),
        ("fp8_block", "Float8BlockQuantizer"),
        ("mxfp8", "MXFP8Quantizer"),
        ("bf16", "IdentityQuantizer"),
    ],
)
def test_recipes_of_the_engine_are_their_own_quantizers(name: str, expected: str) -> None:
    written = executed(exported(load_method(name), name, "te"))
    for tensor in ("input", "weight", "grad_output"):
        assert written["factory"](role(tensor)).name == expected


@pytest.mark.usefixtures("engine")
def test_what_reads_forward_values_again_says_so() -> None:
    found = method(
        roles={"weight@fprop": "nvfp4", "weight@dgrad": {"format": "bf16", "of": "forward"}}
    )
    weight = executed(exported(found, "again", "te"))["factory"](role("weight"))
    assert weight.options["columnwise_source"] == "rowwise_dequantized"


@pytest.mark.parametrize(
    ("library", "found", "words"),
    [
        ("te", load_method("quartet_ii"), "weight@dgrad: scales by eden"),
        ("te", load_method("fractrain_pfq"), "schedule: formats that change"),
        ("te", load_method("bf16_kahan"), "update.mode: kahan"),
        ("te", method(roles={"weight": "int8"}), "int8 is none of its formats"),
        (
            "te",
            method(roles={"weight": "e4m3_tensor:delayed1024"}),
            "delayed scales are those of all tensors",
        ),
        (
            "te",
            method(rules=[{"match": {"blocks": [0]}, "roles": {"*": "bf16"}}]),
            "rules.0.match.blocks: layers are known by name",
        ),
        ("torchao", load_method("nvfp4"), "float8 layers know formats alone"),
        ("torchao", method(roles={"weight": "e4m3_tensor"}), "both factors are in float8"),
        ("torchao", load_method("adam8bit"), "roles.optimizer_m"),
        ("torchao", load_method("fp8_block"), "none of its formats"),
        ("torch", load_method("tetrajet_v2"), "with hadamard: 32"),
        ("torch", load_method("fp8_delayed"), "e4m3_tensor:delayed1024: expected a float"),
        ("torch", load_method("fp16_mixed"), "loss_scale.kind: dynamic"),
    ],
)
def test_what_a_library_cannot_express_is_refused_by_part(
    library: str, found: Method, words: str
) -> None:
    with pytest.raises(MethodError, match=words):
        exported(found, "a method", library)


@pytest.mark.parametrize("library", EXPORTERS)
def test_bf16_is_expressible_everywhere(library: str) -> None:
    assert "bf16" in exported(load_method("bf16"), "bf16", library)
