"""Products and gradients of a method beside those of Transformer Engine's own references.

The library needs a GPU, its references only torch: they are loaded without it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dse.training.export.exporters import exported
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.quantized import apply
from tests.training.methods import method

FOUND = importlib.util.find_spec("transformer_engine")
if FOUND is None or not FOUND.submodule_search_locations:
    pytest.skip("transformer_engine is not installed", allow_module_level=True)

ROOT = "transformer_engine.pytorch"
REFERENCES = f"{ROOT}.custom_recipes"
FOLDER = Path(FOUND.submodule_search_locations[0]) / "pytorch" / "custom_recipes"
TOKENS, INPUTS, OUTPUTS = 128, 96, 64
SUMS = 1e-6
"""Relative distance that another order of sums makes."""
SQUARE = "e2m1@b16x16/e4m3+fp32"
FACTORS = ("weight", "activation", "activation_gradient")
OPERANDS = dict.fromkeys(FACTORS, "nvfp4")
CHOSEN = {key: {"format": "nvfp4", "scales": "four_over_six"} for key in FACTORS}


class Quantizer:
    """The base class of quantizers: its module loads the library's kernels."""

    def __init__(self, *, rowwise: bool, columnwise: bool) -> None:
        vars(self).update(rowwise_usage=rowwise, columnwise_usage=columnwise)


class Storage:
    """The base class of quantized tensors."""


def loaded(name: str, patch: pytest.MonkeyPatch, **content: object) -> ModuleType:
    """A module of that name in the library's place."""
    module = ModuleType(name)
    vars(module).update(content)
    patch.setitem(sys.modules, name, module)
    return module


@pytest.fixture(scope="module", name="engine")
def engine_fixture() -> Iterator[SimpleNamespace]:
    """Transformer Engine's references, by the name of their module."""
    with pytest.MonkeyPatch.context() as patch:
        loaded("transformer_engine", patch)
        loaded(ROOT, patch)
        loaded(
            f"{ROOT}.quantized_tensor", patch, Quantizer=Quantizer, QuantizedTensorStorage=Storage
        )
        loaded(f"{ROOT}.tensor", patch)
        loaded(f"{ROOT}.tensor.utils", patch, is_custom=lambda _: True)
        package = loaded(REFERENCES, patch, __path__=[str(FOLDER)])
        found = {}
        for name in ("gemm", "reference_utils", "reference_nvfp4", "reference_current_scaling"):
            spec = importlib.util.spec_from_file_location(
                f"{REFERENCES}.{name}", FOLDER / f"{name}.py"
            )
            assert spec is not None
            assert spec.loader is not None
            found[name] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, found[name])
            setattr(package, name, found[name])
            spec.loader.exec_module(found[name])
        yield SimpleNamespace(**found)


@dataclass(frozen=True)
class Hybrid:
    """The library's quantizer of two: one for the rows, one for the columns."""

    rowwise_quantizer: Any
    columnwise_quantizer: Any

    def quantize(self, tensor: Tensor) -> Pair:
        rows, columns = (
            one.quantize(tensor) for one in (self.rowwise_quantizer, self.columnwise_quantizer)
        )
        return Pair(rows, columns)


class Pair(NamedTuple):
    """A tensor as it lies and as it is multiplied transposed, each with scales of its own."""

    rows: Any
    columns: Any


def reference(engine: SimpleNamespace, **options: Any) -> Any:
    """The reference of the library's `NVFP4Quantizer`; it draws nothing, and has no kernels."""
    assert not options.pop("stochastic_rounding")
    options.pop("with_post_rht_amax"), options.pop("fp4_dtype")
    return engine.reference_nvfp4.NVFP4QuantizerRef(
        dtype=engine.reference_utils.Fp4Formats.E2M1,
        quant_tile_shape=(16, 16) if options.pop("with_2d_quantization") else (1, 16),
        **options,
    )


def factory_of(engine: SimpleNamespace, found: Method) -> Any:
    """The factory that an exported file has, of references in the place of kernels."""
    with pytest.MonkeyPatch.context() as patch:
        nothing = dict.fromkeys(
            ("Float8BlockQuantizer", "Float8CurrentScalingQuantizer", "MXFP8Quantizer")
        )
        made = {"NVFP4Quantizer": lambda **options: reference(engine, **options)}
        dtype = SimpleNamespace(kFloat4E2M1="e2m1")
        loaded("transformer_engine", patch)
        loaded("transformer_engine.common", patch)
        recipes: dict[str, object] = {"CustomRecipe": SimpleNamespace, "Format": None}
        loaded("transformer_engine.common.recipe", patch, **recipes)
        loaded(ROOT, patch, **nothing, **made)
        loaded(f"{ROOT}.constants", patch, DType=dtype)
        loaded(f"{ROOT}.quantization", patch, DelayedScalingRequest=None)
        loaded(f"{ROOT}.tensor.hybrid_tensor", patch, HybridQuantizer=Hybrid)
        loaded(f"{ROOT}.tensor.identity_tensor", patch, IdentityQuantizer=None)
        written: dict[str, Any] = {}
        exec(exported(found, "mine", "te"), written)
        return written["factory"]


def tensors(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, weights, and gradients of outputs, whose channels differ in size."""
    generator = torch.Generator().manual_seed(seed)
    x, w, dy = (
        torch.randn(size, generator=generator)
        for size in ((TOKENS, INPUTS), (OUTPUTS, INPUTS), (TOKENS, OUTPUTS))
    )
    return (
        x * torch.logspace(-1, 1, INPUTS),
        w / 8,
        1e-3 * dy * torch.logspace(-1, 1, OUTPUTS),
    )


def ours(found: Method, x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, and gradients of inputs and weights."""
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False)
    layer.weight.data.copy_(w)
    given = x.clone().requires_grad_()
    y = apply(layer, found)(given)
    y.backward(dy)
    assert given.grad is not None
    assert layer.weight.grad is not None
    return y.detach(), given.grad, layer.weight.grad


def theirs(engine: SimpleNamespace, x: Any, w: Any, dy: Any) -> tuple[Tensor, ...]:
    """The same of quantized tensors, as the library dispatches the three products."""
    x, w, dy = (one if isinstance(one, Pair) else Pair(one, one) for one in (x, w, dy))
    products = (
        (w.rows, x.rows, "TN", False),
        (w.columns, dy.rows, "NN", True),
        (x.columns, dy.columns, "NT", True),
    )
    return tuple(
        engine.gemm.custom_gemm(a, b, None, torch.float32, layout=layout, grad=grad)[0]
        for a, b, layout, grad in products
    )


def assert_alike(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < SUMS


def nvidias() -> Method:
    """NVIDIA's recipe without draws, which the references have not."""
    rotated = {"format": "nvfp4", "hadamard": 16, "signs": "fixed"}
    roles = {
        "weight": SQUARE,
        "activation@fprop": "nvfp4",
        "activation@wgrad": rotated,
        "activation_gradient@dgrad": "nvfp4",
        "activation_gradient@wgrad": rotated,
    }
    shipped = load_method("nvfp4").roles
    assert shipped.keys() == roles.keys()
    return method(roles=roles)


@pytest.mark.parametrize("seed", range(3))
def test_nvidias_recipe_is_the_references(engine: SimpleNamespace, seed: int) -> None:
    """Rotations with the library's own signs among it."""
    made = engine.reference_nvfp4.nvfp4_ref_rht_2d_factory
    roles = [SimpleNamespace(module_type="linear", tensor_type=t) for t in ("input", "weight")]
    one, weight = map(made, roles)
    x, w, dy = tensors(seed)
    expected = theirs(engine, one.quantize(x), weight.quantize(w), one.quantize(dy))
    assert_alike(ours(nvidias(), x, w, dy), expected)


@pytest.mark.parametrize(
    "roles",
    [
        OPERANDS,
        OPERANDS | {"weight": SQUARE},
        CHOSEN,
        {
            "weight": {"format": SQUARE, "scales": "four_over_six"},
            "activation@fprop": {"format": "nvfp4", "scales": "four_over_six"},
            "activation@wgrad": {"format": "nvfp4", "hadamard": 16, "signs": "none"},
            "activation_gradient@dgrad": "nvfp4",
            "activation_gradient@wgrad": {"format": "nvfp4", "hadamard": 16, "signs": "none"},
        },
        None,
    ],
    ids=["plain", "square", "four over six", "mixed", "nvidia"],
)
def test_an_exported_file_computes_what_was_emulated(
    engine: SimpleNamespace, roles: dict[str, Any] | None
) -> None:
    found = method(roles=roles) if roles else nvidias()
    factory = factory_of(engine, found)
    x, w, dy = tensors(3)
    quantized = [
        factory(
            SimpleNamespace(module_type="linear", tensor_type=name, name="body")
        ).quantize(value)
        for name, value in (("input", x), ("weight", w), ("grad_output", dy))
    ]  # fmt: skip
    assert_alike(ours(found, x, w, dy), theirs(engine, *quantized))


def test_other_scales_than_those_of_four_over_six_are_another_network(
    engine: SimpleNamespace,
) -> None:
    """The library's defaults: what an export that named them alone would compute."""
    x, w, dy = tensors(4)
    options = {
        "fp4_dtype": "", "with_post_rht_amax": False, "stochastic_rounding": False,
        "with_2d_quantization": False, "nvfp4_use_4over6": True,
    }  # fmt: skip
    one = reference(engine, **options)
    found = ours(method(roles=CHOSEN), x, w, dy)
    for mine, other in zip(found, theirs(engine, *map(one.quantize, (x, w, dy))), strict=True):
        assert float((mine - other).norm() / other.norm()) > 0.01


@pytest.mark.parametrize("gradient", ["e4m3", "e5m2"])
def test_fp8_with_current_scales_is_the_reference(engine: SimpleNamespace, gradient: str) -> None:
    dtypes = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
    roles = {"weight": "e4m3_tensor", "activation": "e4m3_tensor"}
    x, w, dy = tensors(5)
    forward, backward = (
        engine.reference_current_scaling.CurrentScalingQuantizerRef(dtype=dtypes[name])
        for name in ("e4m3", gradient)
    )
    found = ours(method(roles=roles | {"activation_gradient": f"{gradient}_tensor"}), x, w, dy)
    expected = theirs(engine, forward.quantize(x), forward.quantize(w), backward.quantize(dy))
    assert_alike(found, expected)
