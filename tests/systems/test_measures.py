"""Measures against what is known without them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dse.errors import StudyError
from dse.systems.measures.memory import StageCost
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.networks import CertifiedClasses, TrainedMethods
from dse.systems.measures.physics import ChaoticFlow, SlowDiffusion
from dse.systems.measures.prices import Priced, ProductPrices, ServedTokens
from dse.systems.measures.sums import IntegerSums
from dse.systems.measures.tensors import Drawn, Outliers
from dse.training.load import load_method
from dse.training.stability import certified


def test_a_method_is_changed_where_a_claim_says_so() -> None:
    found = given_method({"base": "fp16_pure", "update": {"epsilon": 1e-8}})
    assert found.update.epsilon == 1e-8
    assert found.update.mode == "nearest"
    assert found.roles == load_method("fp16_pure").roles


def test_outliers_are_where_they_are_said_to_be() -> None:
    drawn = Drawn(shape=(8, 128), outliers=Outliers(kind="column", factor=1000, every=64))
    x = drawn.draw(0)
    assert set(x.abs().amax(0).topk(2).indices.tolist()) == {0, 64}
    assert drawn.outlying(0).sum() == 16
    rows = Drawn(shape=(8, 128), outliers=Outliers(kind="row", factor=1000, every=8))
    assert int(rows.draw(0).abs().amax(1).argmax()) == 0
    assert torch.equal(rows.draw(5), rows.draw(5))
    assert not torch.equal(rows.draw(5), rows.draw(6))


def test_certified_classes_cannot_flip_and_others_may() -> None:
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.9]])
    other = torch.tensor([[0.6, 0.4], [0.9, 1.0]])
    assert certified(reference, other).tolist() == [True, False]


def test_a_coarse_format_certifies_less_than_a_fine_one_and_never_wrongly() -> None:
    fine, coarse = (
        CertifiedClasses(method={"roles": {"*": name}}, networks=3).rows(1)
        for name in ("fp16", "e4m3_tensor")
    )
    assert fine["certified"] > coarse["certified"] > 0.1
    assert coarse["flipped"] > 0
    assert fine["flips"] == coarse["flips"] == 0


def test_a_flow_in_float32_is_as_far_as_one_in_float64() -> None:
    """Ensembles alone: distances between formats that hardly round are the floor."""
    flow = ChaoticFlow(formats=("fp32",), members=300, pairs=3, spin_up=300, steps=100)
    found = flow.rows(0)
    assert 0 < found["fp32"] < 3 * found["floor"]


def test_heat_flows_as_the_equation_says() -> None:
    """In float32: the error beside float64 is small, and the profile is that of erfc."""
    diffusion = SlowDiffusion(formats=("fp32",), steps=500, columns=1)
    assert diffusion.rows(0)["fp32"] < 0.01
    profile = diffusion._run(torch.float64, lambda x: x, 1)[0].numpy()
    depth, time = np.arange(21), 500 * 0.002
    expected = 273 + 20 * np.array([_erfc(one / (2 * time**0.5)) for one in depth])
    assert profile == pytest.approx(expected, abs=0.6)


def _erfc(x: float) -> float:
    return float(torch.special.erfc(torch.tensor(x)))


def test_sums_wrap_where_they_must() -> None:
    """Two products of 255 and -128 are beyond 16 bits; 64 of 255 x -2 are not."""
    found = IntegerSums(depth=2, accumulators=("int16", "int32"), side=64).rows(0)
    assert found["int32"] == 0
    assert found["int16"] > 0
    narrow = IntegerSums(depth=64, weight_bits=2, accumulators=("int16",))
    assert narrow.rows(0)["int16"] == 0


def test_runs_are_paired_with_those_of_the_reference() -> None:
    methods: dict[str, MethodGiven] = {"same": "bf16", "coarse": {"roles": {"*": "int2_channel"}}}
    found = TrainedMethods(workload="digits-mlp", steps=20, runs=2, methods=methods).rows(0)
    assert found["same gap"] == found["same points"] == 0
    assert found["coarse gap low"] < found["coarse gap"] < found["coarse gap high"]
    assert found["coarse loss"] - found["reference loss"] == pytest.approx(found["coarse gap"])


def test_shares_of_another_number_of_stages_are_refused() -> None:
    cost = StageCost(method="fractrain_pfq", reference="bf16", shares={"two": (1.0, 1.0)})
    with pytest.raises(StudyError, match="expected 4 stages, got 2"):
        cost.rows(0)


def test_of_what_never_trains_there_is_no_loss() -> None:
    lost = {"roles": {"*": "fp16"}, "loss_scale": {"kind": "compound", "initial": 1e30},
            "update": {"optimizer": "hadam"}}  # fmt: skip
    found = TrainedMethods(workload="digits-mlp", steps=3, runs=2, methods={"lost": lost}).rows(0)
    assert found["lost diverged"] == 2
    assert math.isnan(found["lost loss"])
    assert math.isnan(found["lost gap low"])


LAYERS = ((256, 512), (512, 256))
FUSED = {"epilogue": ["bias", "relu"], "quantize_into": ["gemm"]}


def _times(tokens: int, **options: Any) -> tuple[float, float]:
    """Predicted microseconds with the fusions of a runtime and without."""
    device: dict[str, Any] = {"device": "xeon-8480", "runtime": "lookup_runtime.yaml"}
    prices = ProductPrices(
        devices={"fused": Priced(**device, runtime_set=FUSED), "apart": Priced(**device)},
        formats={"int8": ("int8_channel", "int8:static")},
        tokens=(tokens,),
        layers=LAYERS,
        times=True,
        **options,
    )
    rows = prices.rows(0)
    return rows[f"fused int8 {tokens} us"], rows[f"apart int8 {tokens} us"]


def test_a_fusion_saves_only_what_is_there_to_fuse() -> None:
    fused, apart = _times(256)
    assert fused == apart
    fused, apart = _times(256, then=("relu",))
    assert fused < apart
    relu = apart - fused
    fused, apart = _times(256, then=("relu",), chained=True)
    assert apart - fused > relu  # the second product's input is rounded by a kernel, too


def test_products_that_do_not_meet_are_no_chain() -> None:
    with pytest.raises(ValueError, match="read as much as the one before writes"):
        ProductPrices(
            devices={"x": Priced(device="xeon-8480")}, formats={"bf16": "bf16"}, tokens=(1,),
            layers=((8, 16), (8, 16)), chained=True,
        )  # fmt: skip


def test_each_format_is_served_by_the_number_of_gpus_that_suits_it() -> None:
    """24 GB hold an 8B in 4 bits, and in bf16 two of them are needed."""
    given: dict[str, Any] = {
        "model": "zoo:llama-3-8b",
        "devices": {"a10": "a10:vllm"},
        "formats": ("bf16", "w4a16"),
    }
    apart = {ways: ServedTokens(**given, gpus=(ways, 8)).rows(0) for ways in (1, 2)}
    found = ServedTokens(**given, gpus=(1, 2, 8)).rows(0)
    for name in ("bf16", "w4a16"):
        assert found[f"a10 {name} full"] == max(one[f"a10 {name} full"] for one in apart.values())
        assert found[f"a10 {name} requests"] >= 1
    assert found["a10 bf16 gpus"] == 2
    assert found["a10 w4a16 gpus"] == 1


def test_a_model_that_fits_nowhere_serves_nothing() -> None:
    found = ServedTokens(
        model="zoo:llama-3-70b", devices={"a10": "a10:vllm"}, formats=("bf16",), gpus=(1, 2)
    ).rows(0)
    assert set(found.values()) == {0.0}
