"""The same networks out of four exporters have the same regions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from torch import nn

from dse.graph.lower.work import lower
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bound_types
from dse.graph.patterns.analysis import Analysis

LAYERS = 2
VARIANTS: dict[str, dict[str, object]] = {
    "torchscript-14": {"dynamo": False, "opset_version": 14},
    "torchscript-17": {"dynamo": False, "opset_version": 17},
    "torchscript-17-unfolded": {
        "dynamo": False, "opset_version": 17, "do_constant_folding": False,
    },
    "dynamo-18": {"dynamo": True, "opset_version": 18},
    "dynamo-18-raw": {"dynamo": True, "opset_version": 18, "optimize": False},
    "dynamo-23": {"dynamo": True, "opset_version": 23},
}  # fmt: skip
"""TorchScript and dynamo, optimised and not; opset 23 has fused attention and norms."""

LLAMA_BLOCK = ("norm_1", "qkv", "rotary", "attention", "o", "norm_2", "gate_up", "down")
GPT2_BLOCK = ("norm_1", "qkv", "attention", "o", "norm_2", "fc1", "fc2")
BERT_BLOCK = ("qkv", "attention", "o", "norm_1", "fc1", "fc2", "norm_2")
QWEN_BLOCK = (
    "norm_1", "qkv", "qk_norm_1", "qk_norm_2", "rotary", "attention", "o", "norm_2", "gate_up",
    "down",
)  # fmt: skip


class OfTransformers(nn.Module):
    """A network of `transformers` with tensors in and out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns logits, or hidden states where there is no head."""
        result = self.network(input_ids=tokens, attention_mask=mask)
        return result.logits if hasattr(result, "logits") else result.last_hidden_state


def llama() -> nn.Module:
    """RMSNorm with casts, rotation, two query heads a key head, SwiGLU."""
    config = transformers.LlamaConfig(
        num_hidden_layers=LAYERS, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=96, use_cache=False,
    )  # fmt: skip
    return OfTransformers(transformers.LlamaForCausalLM(config))


def gpt2() -> nn.Module:
    """Fused c_attn, tanh GELU, learned positions, tied head."""
    config = transformers.GPT2Config(
        n_layer=LAYERS, n_embd=32, n_head=4, vocab_size=96, n_positions=16, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return OfTransformers(transformers.GPT2LMHeadModel(config))


def bert() -> nn.Module:
    """Post-norm, biases, erf GELU, three embeddings."""
    config = transformers.BertConfig(
        num_hidden_layers=LAYERS, hidden_size=32, num_attention_heads=4, intermediate_size=64,
        vocab_size=96, max_position_embeddings=16,
    )  # fmt: skip
    return OfTransformers(transformers.BertModel(config, add_pooling_layer=False))


def qwen3() -> nn.Module:
    """Norms of queries and keys before the rotation."""
    config = transformers.Qwen3Config(
        num_hidden_layers=LAYERS, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=48, vocab_size=96, use_cache=False,
    )  # fmt: skip
    return OfTransformers(transformers.Qwen3ForCausalLM(config))


def mixtral() -> nn.Module:
    """Four experts, two a token, whose matrices are picked for each token."""
    config = transformers.MixtralConfig(
        num_hidden_layers=LAYERS, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=96, num_local_experts=4, num_experts_per_tok=2,
        use_cache=False, experts_implementation="batched_mm",
    )  # fmt: skip
    return OfTransformers(transformers.MixtralForCausalLM(config))


BEFORE, AFTER = ("embedding",), ("norm", "head")
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], tuple[str, ...], tuple[str, ...]]]
CASES = {
    "llama": (llama, BEFORE, LLAMA_BLOCK, AFTER),
    "gpt2": (gpt2, BEFORE, GPT2_BLOCK, AFTER),
    "bert": (bert, ("embedding", "norm"), BERT_BLOCK, ()),
    "qwen3": (qwen3, BEFORE, QWEN_BLOCK, AFTER),
    "mixtral": (mixtral, BEFORE, ("router", "experts_gate_up", "experts_down"), AFTER),
}
FAST = ("torchscript-14", "torchscript-17", "torchscript-17-unfolded")
PAIRS = [
    *(("llama", variant) for variant in VARIANTS),
    *((name, variant) for name in ("gpt2", "bert", "qwen3") for variant in FAST[1:2]),
    ("gpt2", "dynamo-18-raw"),
    ("bert", "dynamo-23"),
]
"""Every variant of one network, and of the others those that differ: dynamo takes seconds."""


@cache
def exported(network: str, variant: str, folder: Path) -> Path:
    """The file of a network out of an exporter."""
    torch.manual_seed(0)
    module = CASES[network][0]().eval()
    tokens = torch.randint(0, 96, (2, 8))
    names = ["tokens", "mask"]
    options: dict[str, Any] = dict(VARIANTS[variant])
    if not options["dynamo"]:
        options["dynamic_axes"] = {name: {0: "batch", 1: "sequence"} for name in names}
    path = folder / f"{network}-{variant}.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        # What torch's and transformers' own code warns about while it is traced.
        for module_name in ("torch", "transformers", "onnxscript", "copyreg"):
            warnings.filterwarnings("ignore", module=rf"{module_name}(\..*)?")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX")
        torch.onnx.export(
            module,
            (tokens, torch.ones_like(tokens)),
            path,
            input_names=names,
            verbose=False,
            **options,
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exports of this module go."""
    return tmp_path_factory.mktemp("exported")


@pytest.mark.parametrize(("network", "variant"), PAIRS)
def test_regions_do_not_depend_on_the_exporter(folder, network, variant):
    _, before, block, after = CASES[network]
    found = Analysis(load(exported(network, variant, folder))).regions
    expected = [*before]
    expected += [f"blocks.{i}/{role}" for i in range(LAYERS) for role in block]
    expected += after
    assert [region.name for region in found if region.name != "shape"] == expected


@pytest.mark.parametrize(("network", "variant"), PAIRS)
def test_work_does_not_depend_on_the_exporter(folder, network, variant):
    graph = load(exported(network, variant, folder))
    dims = dict(zip(dimensions(graph), (2, 8), strict=False))
    work = lower(Analysis(graph), dims)
    reference = load(exported(network, "torchscript-17", folder))
    expected = lower(Analysis(reference), {"batch": 2, "sequence": 8})
    for region, other in zip(work.regions, expected.regions, strict=True):
        assert (region.name, region.kind, region.macs) == (other.name, other.kind, other.macs)
    attention = next(r for r in work.regions if r.kind == "attention").ops[0]
    kv_heads = 2 if network in ("llama", "qwen3") else 4
    assert (attention.sizes["H"], attention.sizes["HK"]) == (4, kv_heads)
    assert attention.sizes["causal"] == int(network != "bert")


@pytest.mark.parametrize("variant", ["dynamo-18", "dynamo-18-raw"])
def test_experts_are_grouped_products(folder, variant):
    graph = load(exported("mixtral", variant, folder))
    work = lower(Analysis(graph), dict(zip(dimensions(graph), (2, 8), strict=False)))
    macs = {region.name: region.macs for region in work.regions if region.macs}
    tokens, block = 2 * 8, CASES["mixtral"][2]
    for i in range(LAYERS):
        scores, gate_up, down = (macs[f"blocks.{i}/{role}"] for role in block)
        assert scores == tokens * 32 * 4
        assert (gate_up, down) == (tokens * 2 * 32 * 2 * 48, tokens * 2 * 48 * 32)


@pytest.mark.parametrize("variant", ["torchscript-17-unfolded", "dynamo-18-raw", "dynamo-23"])
def test_shapes_are_those_of_onnxruntime(folder, variant):
    path = exported("llama", variant, folder)
    graph = load(path)
    types = bound_types(graph, dict(zip(dimensions(graph), (2, 8), strict=False)))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {name: np.ones((2, 8), np.int64) for name in graph.inputs})
    assert types[graph.outputs[0]].shape == result.shape == (2, 8, 96)
