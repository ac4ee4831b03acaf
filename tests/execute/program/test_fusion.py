"""Chains that run as one kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.execute.operators.fused import fused_attention
from dse.execute.operators.quantized_attention import ROWS
from dse.execute.operators.step import Sharing
from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from hwmodels.formats.catalog import quantizer
from tests.execute.conftest import Exported


class Identity:
    """Changes nothing, and thereby keeps what it stands in from being fused."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


CHAINS = {
    "gpt2-dynamo18": {"attention": 2, "gelu_tanh": 2},
    "llama-dynamo18": {"attention": 2, "rms_norm": 5, "silu": 2},
    "vit-dynamo18": {"attention": 2, "gelu": 2},
    "vit-torchscript17": {"attention": 2, "gelu": 2},
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_found(name: str, exported: Callable[[str], Exported]) -> None:
    assert Counter(f.step.what for f in exported(name).program._planner.fusions) == CHAINS[name]


def inner_sites(model: Exported) -> Mapping[str, Identity]:
    """A site inside each chain."""
    return {
        f"{node.name}/out0": Identity()
        for node in model.graph.nodes
        if node.op_type in ("Softmax", "ReduceMean", "Sigmoid", "Erf", "Tanh")
    }


@pytest.mark.parametrize("name", CHAINS)
def test_fused_and_written_out_agree(name: str, exported: Callable[[str], Exported]) -> None:
    model = exported(name)
    inside = inner_sites(model)
    fused = model.program.run(model.feeds)
    written_out = model.program.run(model.feeds, inside)
    assert all(len(identity.seen) == 1 for identity in inside.values())
    assert fused.macs == written_out.macs
    for key, value in fused.outputs.items():
        torch.testing.assert_close(value, written_out.outputs[key], rtol=1e-4, atol=1e-5)


def test_quantizers_of_operands_stay_at_the_fused_kernel(
    exported: Callable[[str], Exported],
) -> None:
    """Zeros in place of the values make the attention's output zero; the scores are not needed."""
    model = exported("vit-torchscript17")
    softmax = [node for node in model.graph.nodes if node.op_type == "Softmax"]
    mixes = [model.graph.consumers[node.outputs[0]][0] for node in softmax]
    sites = {f"{node.name}/in1": torch.zeros_like for node in mixes}
    outputs = {f"{node.name}/out0": Identity() for node in mixes}
    model.program.run(model.feeds, {**sites, **outputs})
    assert all(not identity.seen[0].any() for identity in outputs.values())


MASKED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 3, S, 4] q, float[2, 3, 4, L] k, float[2, 3, L, 5] v, MASK m) => (float[2, 3, S, 5] y)
<float scale = {0.5}, float low = {-inf}>
{
    s = MatMul (q, k)
    t = Mul (s, scale)
    w = APPLY
    [softmax] p = Softmax <axis = -1> (w)
    y = MatMul (p, v)
}
"""


@pytest.mark.parametrize(
    "kind", ["bool[S, L]", "bool[2, 1, S, L]", "float[S, L]", "float[1, 1, S, L]"]
)
@pytest.mark.parametrize("causal", [True, False])
def test_masks(kind: str, causal: bool, tmp_path: Path) -> None:
    apply = "Where (m, t, low)" if kind.startswith("bool") else "Add (t, m)"
    text = MASKED.replace("MASK", kind).replace("APPLY", apply).replace("{-inf}", "{0}")
    proto = onnx.parser.parse_model(text)
    low = onnx.numpy_helper.from_array(torch.tensor(-torch.inf).numpy(), "low")
    proto.graph.initializer[1].CopyFrom(low)
    onnx.save(proto, tmp_path / "m.onnx")
    program = Program(load(tmp_path / "m.onnx"))
    assert len(program._planner.fusions) == 1
    generator = torch.Generator().manual_seed(0)
    length = 6
    allowed = torch.ones(length, length).tril().bool()
    if not causal:
        allowed = torch.rand(length, length, generator=generator) > 0.4
        allowed[:, 0] = True
        allowed[2] = False  # this row sees nothing: NaN in both
    mask = (
        allowed if kind.startswith("bool") else torch.zeros(6, 6).masked_fill(~allowed, -torch.inf)
    )
    rank = kind.count(",") + 1
    if rank == 4:
        mask = mask.expand(2 if "[2" in kind else 1, 1, 6, 6)
    feeds = {
        "q": torch.randn(2, 3, length, 4, generator=generator),
        "k": torch.randn(2, 3, 4, length, generator=generator),
        "v": torch.randn(2, 3, length, 5, generator=generator),
        "m": mask,
    }
    fused = program.run(feeds).outputs["y"]
    written_out = program.run(feeds, {"softmax/out0": Identity()}).outputs["y"]
    torch.testing.assert_close(fused, written_out, equal_nan=True)
    assert fused[:, :, 2].isnan().all() == (not causal)


@dataclass(frozen=True)
class Rounded:
    """Rounds to 8 bits of fraction of the largest value, in place where asked."""

    sharing: Sharing
    keeps_zeros: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return self.overwrite(x.clone(), largest=x.amax())

    def overwrite(self, x: Tensor, *, largest: Tensor | None = None) -> Tensor:
        step = 1 / 256
        if self.sharing != Sharing.NOTHING:
            assert largest is not None
            step *= float(largest)
        zero = 0.0 if self.keeps_zeros else step
        return x.div_(step).round_().mul_(step).clamp_(min=zero)


QUANTIZERS = (
    *map(Rounded, Sharing),
    *(Rounded(sharing, keeps_zeros=False) for sharing in Sharing),
)


@pytest.mark.parametrize(
    ("tile", "rows"), [(1 << 4, 64), (1 << 6, 64), (1 << 18, 64), (1 << 18, 2)]
)
@pytest.mark.parametrize("quantize", QUANTIZERS)
@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (2, 1, 6, 7), (2, 3, 6, 7), "causal"])
def test_quantized_probabilities_agree_with_the_written_out_ones(
    shape: tuple[int, ...] | str,
    quantize: Rounded,
    tile: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dse.execute.operators.quantized_attention.TILE", tile)
    monkeypatch.setattr("dse.execute.operators.quantized_attention.ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 6, 4, generator=generator)
    key = torch.randn(2, 1, 4, 7, generator=generator)
    value = torch.randn(2, 3, 7, 5, generator=generator)
    if isinstance(shape, str):
        mask = torch.ones(6, 7, dtype=torch.bool).tril()
    else:
        mask = torch.rand(shape, generator=generator) > 0.4
        mask[..., 0], mask[..., 2, :] = True, False
    scores = (query @ key * 0.5).masked_fill(~mask, -torch.inf)
    expected = quantize(torch.softmax(scores, -1).nan_to_num(0)) @ value
    with torch.inference_mode():
        got = fused_attention(query, key, value, mask, scale=0.5, guarded=True, quantize=quantize)
    torch.testing.assert_close(got, expected, atol=1 / 250, rtol=0)


def test_hidden_keys_are_not_looked_at() -> None:
    """As in the plain kernel, an infinite value behind a causal mask does not turn to NaN."""
    query, key = torch.zeros(1, 1, 256, 4), torch.zeros(1, 1, 4, 256)
    value = torch.ones(1, 1, 256, 4)
    value[..., -1, :] = torch.inf
    mask = torch.ones(256, 256, dtype=torch.bool).tril()
    with torch.inference_mode():
        y = fused_attention(query, key, value, mask, quantize=Rounded(Sharing.NOTHING))
    assert y[..., :ROWS, :].isfinite().all()
    assert y[..., -1, :].isinf().all()


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int8_channel", "bf16", "e4m3_tensor"])
def test_probabilities_of_a_causal_mask_are_quantized_as_a_whole(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 100, 8, generator=generator), torch.randn(2, 3, 8, 100)
    emulator = Emulator(quantizer=quantizer(name), axes=(3,))
    mask = torch.ones(100, 100, dtype=torch.bool).tril()
    probabilities = torch.softmax((query @ key).masked_fill(~mask, -torch.inf), -1)
    # With ones on the diagonal for values, the output is the quantized probabilities.
    with torch.inference_mode():
        got = fused_attention(query, key, torch.eye(100), mask, quantize=emulator)
    step = probabilities.amax() / 16
    assert (got - emulator(probabilities)).abs().max() <= step
    assert (got == emulator(probabilities)).float().mean() > 0.999


def test_quantized_probabilities_pass_gradients_on() -> None:
    query = torch.randn(2, 6, 4, requires_grad=True)
    y = fused_attention(
        query, torch.randn(2, 4, 7), torch.randn(2, 7, 5), quantize=lambda p: p * 1.0
    )
    y.sum().backward()
    assert query.grad is not None
