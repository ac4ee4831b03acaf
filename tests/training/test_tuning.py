"""Adapters on a frozen network, and units of it that are cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.training.fit import check_fit
from dse.training.ledger import Sizes, ledger
from dse.training.load import load_method
from dse.training.method import Distillation, Pruning, Tuning
from dse.training.price import left_out
from dse.training.quantized import apply
from dse.training.run import Run
from dse.training.tuning.salience import excess_kurtosis, outlier_aware, sensitivity
from dse.training.tuning.tuned import Adapter, Tuned, Units, share_left
from dse.training.workloads.byte_gpt import ByteGpt
from dse.training.workloads.workload import outputs_divergence, outputs_loss
from dse.zoo.llama import LlamaConfig
from tests.training.methods import method
from tests.training.test_run import STEPS, Stripes, finished, in_pieces

EXACT = {"*": "fp32"}
CUT = {"layers": ["0"], "every": 1, "fade": 2, "ends": 0.5}
"""Every other hidden unit of `Stripes`."""


def tuned(**content: object) -> dict[str, object]:
    return {"rank": 2, "begins": 0.25, **content}


def test_a_channel_with_outliers_counts_more_than_its_sensitivity() -> None:
    """APT, arXiv 2401.12200: |activation x gradient| and the root of the excess kurtosis."""
    y = torch.randn(4096, 6, generator=torch.Generator().manual_seed(0))
    y[::256, 4] *= 30.0  # planted: rare and large
    gradient = torch.ones_like(y) / y.abs().sum(0)  # all channels alike by sensitivity
    found = sensitivity(y, gradient, 1)
    torch.testing.assert_close(found, torch.ones(6))
    kurtosis = excess_kurtosis(y, 1)
    scores = outlier_aware(found, kurtosis)
    assert int(scores.argmax()) == 4
    assert float(scores[4]) == pytest.approx(1 + float(kurtosis[4]) ** 0.5)
    assert float((scores[:4] - 1).max()) < 0.6


@pytest.mark.parametrize("channels", [1, 4])
def test_kurtosis_is_scipys(channels: int) -> None:
    y = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(0)).double().exp()
    units = y.reshape(150, 8 // channels, channels).numpy()
    expected = [scipy.stats.kurtosis(units[:, unit].ravel()) for unit in range(8 // channels)]
    np.testing.assert_allclose(excess_kurtosis(y, channels).numpy(), expected, rtol=1e-9)


def test_units_of_equal_outputs_have_no_kurtosis() -> None:
    assert torch.equal(excess_kurtosis(torch.ones(9, 4), 2), torch.zeros(2))


def test_the_share_that_is_left_falls_by_a_cubic() -> None:
    assert [share_left(0.4, t) for t in (0.0, 1.0, 2.0)] == pytest.approx([1.0, 0.4, 0.4])
    assert share_left(0.4, 0.5) == pytest.approx(0.4 + 0.6 / 8)


def test_weights_are_frozen_and_adapters_are_trained() -> None:
    run = Run(method(roles=EXACT, tuning=tuned()), Stripes(), 0, steps=STEPS)
    before = None
    while not run.done:
        run.advance()
        if run.step == STEPS // 4:
            before = [one.clone() for one in run._model.model.parameters()]
    assert before is not None
    after = list(run._model.model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    made = run._model.tuned
    assert made is not None
    assert all(bool(one.abs().sum() > 0) for one in made.parameters())
    outcome = run.outcome()
    assert outcome.last is not None
    assert outcome.last.loss < outcome.first.loss


def test_adapters_begin_as_nothing() -> None:
    weights = {"layer": torch.randn(6, 4)}
    made = Tuned(Tuning(rank=2), weights, steps=1, seed=0)
    assert torch.equal(made.weight("layer", weights["layer"]), weights["layer"])
    assert made.density == 1.0


@pytest.mark.parametrize("salience", ["outliers", "gradient", "magnitude", "random"])
def test_cut_units_can_be_taken_out(salience: str) -> None:
    """A network of the units that are left gives the same outputs."""
    pruning = {**CUT, "salience": salience}
    given = method(roles=EXACT, tuning=tuned(density=0.5, prune=pruning))
    run = Run(given, Stripes(), 0, steps=STEPS)
    while not run.done:
        run.advance()
    model, made = run._model, run._model.tuned
    assert made is not None
    assert run.curve.density[-1] == made.density == 0.5
    assert run.curve.density == sorted(run.curve.density, reverse=True)
    network: Any = model.model
    first, last = network[0], network[2]
    alive = made.alive["0"]
    assert int(alive.sum()) == 8
    inner, outer = nn.Linear(16, 8), nn.Linear(8, 2)
    with torch.no_grad():
        inner.weight.copy_(made.weight("0", first.weight)[alive])
        inner.bias.copy_(first.bias[alive])
        outer.weight.copy_(made.weight("2", last.weight)[:, alive])
        outer.bias.copy_(last.bias)
        x = Stripes().held_out()[0].inputs
        torch.testing.assert_close(outer(inner(x).relu()), model.eval()(x))


def test_what_counts_most_is_left() -> None:
    """The class depends on one input: units that read it stay, and more of it than by chance."""
    pruning = {**CUT, "salience": "gradient"}
    given = method(roles=EXACT, tuning=tuned(density=0.25, prune=pruning, begins=0.5))
    run = Run(given, Stripes(), 0, steps=4 * STEPS)
    while not run.done:
        run.advance()
    made = run._model.tuned
    assert made is not None
    network: Any = run._model.model
    weight = made.weight("0", network[0].weight).detach()
    alive = made.alive["0"]
    told = (weight[:, 0].abs() / weight.abs().mean(1)) * network[2].weight.abs().sum(0)
    assert told[alive].mean() > 1.3 * told[~alive].mean()


def test_masks_fade() -> None:
    weights = {"layer": torch.randn(8, 4)}
    found = method(tuning={"rank": 1, "density": 0.5, "prune": {
        "layers": ["layer"], "fade": 4, "every": 1, "ends": 0.1, "salience": "magnitude",
    }}).tuning  # fmt: skip
    assert found is not None
    made = Tuned(found, weights, steps=10, seed=0)
    y = torch.ones(3, 8)
    levels = []
    for step in range(6):
        made.observe(step)
        levels.append(sorted({round(float(v), 2) for v in made.output("layer", y).flatten()}))
    assert levels == [[1.0], [0.75, 1.0], [0.5, 1.0], [0.25, 1.0], [0.0, 1.0], [0.0, 1.0]]
    norms = weights["layer"].abs().sum(1)
    alive = made.alive["layer"]
    assert norms[alive].min() > norms[~alive].max()


def test_units_are_neighbours_and_every_layer_keeps_one() -> None:
    weights = {"small": 1e-3 * torch.randn(8, 4), "large": torch.randn(8, 4)}
    found = method(tuning={"rank": 1, "density": 0.5, "prune": {
        "layers": ["*"], "channels": 2, "every": 1, "ends": 0.1, "salience": "magnitude",
    }}).tuning  # fmt: skip
    assert found is not None
    made = Tuned(found, weights, steps=10, seed=0)
    made.observe(0)
    assert int(made.alive["small"].sum()) == 1
    assert int(made.alive["large"].sum()) == 3
    assert made.density == 0.5


def test_half_of_the_adapters_grow() -> None:
    given = method(roles=EXACT, tuning=tuned(rank=1, grown=3))
    run = Run(given, Stripes(), 0, steps=STEPS)
    while not run.done:
        run.advance()
    made = run._model.tuned
    assert made is not None
    assert sorted(made.ranks.values()) == [1, 3]
    for name, parameter in made.named_parameters():
        if name.endswith(".b"):
            moved = int((parameter.abs().sum(0) > 0).sum())
            assert moved == made.ranks[name.split(".")[1]]


@pytest.mark.parametrize("pause", [2, 3, 5, 9])
def test_pieces_are_the_whole(pause: int, tmp_path: Path) -> None:
    pruning = {**CUT, "every": 2}
    given = method(tuning=tuned(density=0.5, grown=4, prune=pruning, distill={}))
    whole = finished(given, Stripes(), 1)
    assert in_pieces(given, pause, tmp_path) == whole


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (
            {"rank": 2, "density": 0.5},
            r"tuning\.density: 0\.5 of the weights are left",
        ),
        (
            {"rank": 2, "layers": ["*.7"]},
            r"tuning\.layers: '\*\.7' fits no linear layer.*: 0, 2",
        ),
        (
            {"rank": 2, "density": 0.5, "prune": {"layers": ["1"]}},
            r"tuning\.prune\.layers: '1' fits no linear layer",
        ),
        (
            {"rank": 2, "density": 0.5, "prune": {"layers": ["0"], "channels": 5}},
            r"tuning\.prune\.channels: 0 has 16 outputs, which are no whole units of 5",
        ),
        (
            {"rank": 2, "density": 0.5, "layers": ["2"], "prune": {"layers": ["0"]}},
            r"tuning\.prune\.layers: 0 has no adapter, so no gradient tells",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_refused_first(tuning: object, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        check_fit({"mine": method(tuning=tuning)}, Stripes())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tuning": {"rank": 4, "grown": 4}}, r"tuning\.grown: 4 is no more than the rank of 4"),
        ({"tuning": {"rank": 4, "prune": {"layers": ["*"]}}}, r"tuning\.prune: nothing is cut"),
        ({"tuning": {"rank": 4}, "rounds": {"clients": 2}}, r"tuning: rounds is about weights"),
        ({"tuning": {"rank": 0}}, r"tuning\.rank"),
        ({"tuning": {"rank": 4, "distill": {}}}, r"tuning\.distill: nothing is cut"),
        (
            {"tuning": {"rank": 4, "prune": {"layers": []}, "density": 0.5}},
            r"tuning\.prune\.layers",
        ),
    ],
)
def test_contradictions_are_refused(content: dict[str, object], said: str) -> None:
    with pytest.raises(MethodError, match=said):
        method(**content)


def test_the_ledger_has_what_is_left_and_adapters() -> None:
    counts = {"blocks.0.up.weight": 4096, "blocks.0.down.weight": 4096}
    sizes = Sizes(parameters=counts, saved=(), blocks=1)
    prune = {"layers": ["*.up"]}
    found = ledger(
        method(tuning={"rank": 2, "density": 0.25, "layers": ["*.down"], "prune": {
            **prune, "salience": "magnitude",
        }}), sizes,
    )  # fmt: skip
    adapters = 2 * 2 * 64
    assert found.moments == 8 * adapters
    assert found.weights == 2 * (1024 + 4096) + 4 * adapters
    taught = ledger(
        method(tuning={"rank": 2, "density": 0.25, "layers": ["*.down"], "distill": {}, "prune": {
            **prune, "salience": "magnitude",
        }}), replace(sizes, logits=100),
    )  # fmt: skip
    assert taught.weights == found.weights + 4 * adapters
    assert taught.logits == 2 * 4 * 100
    assert any("tuning: products are priced whole" in one for one in left_out(
        method(tuning={"rank": 2})
    ))  # fmt: skip


def test_the_shipped_method_trains_prunes_and_grows() -> None:
    found = load_method("apt")
    assert found.tuning is not None
    with pytest.raises(MethodError, match="fits no linear layer"):
        check_fit({"apt": found}, Stripes())
    sizes = LlamaConfig(vocabulary=256, width=32, layers=1, heads=2, kv_heads=1, ffn_width=64)
    workload = ByteGpt(name="tiny", config=sizes, steps=40, rate=3e-3, sequence=16, samples=2)
    check_fit({"apt": found}, workload)
    run = Run(found, workload, 0, steps=40)
    while not run.done:
        run.advance()
    made, outcome = run._model.tuned, run.outcome()
    assert made is not None
    assert outcome.last is not None
    assert outcome.last.loss < outcome.first.loss
    assert {name.rpartition(".")[2] for name in made.alive} == {"gate_proj", "up_proj"}
    assert made.density == pytest.approx(found.tuning.density, abs=1 / 64)
    assert set(made.ranks.values()) == {found.tuning.rank, found.tuning.grown}


def test_the_products_under_a_tuning_round_the_whole_weight() -> None:
    """The adapter is added before the weight is rounded, as it is merged in the end."""
    layer = nn.Linear(16, 16, bias=False)
    made = apply(
        nn.Sequential(layer), method(roles={"weight": "int4_channel"}, tuning={"rank": 2})
    )
    x = torch.eye(16)
    made(x)
    made.tuned = Tuned(Tuning(rank=2), made.weights, steps=1, seed=0)
    with torch.no_grad():
        for parameter in made.tuned.parameters():
            parameter.normal_()
    whole = made.tuned.weight("0", layer.weight).detach()
    columns: Tensor = made(x).detach()
    steps = columns / (whole.abs().amax(1) / 7)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=0.05)


def test_the_adapters_that_count_most_for_their_numbers_grow() -> None:
    weights = {name: torch.zeros(4, 4) for name in ("low", "high", "middle")}
    found = method(tuning={"rank": 1, "grown": 2}).tuning
    assert found is not None
    made = Tuned(found, weights, steps=2, seed=0)
    for name, size in (("low", 0.1), ("high", 10.0), ("middle", 1.0)):
        adapter: Any = made.adapters[name]
        adapter.b.data.fill_(1.0)
        adapter.b.grad = torch.full_like(adapter.b, size)
    made.observe(0)
    assert made.ranks == {"low": 1, "high": 2, "middle": 2}


def test_an_adapter_adds_its_product_times_the_factor() -> None:
    weight = torch.randn(6, 4)
    found = method(tuning={"rank": 2, "factor": 3.0}).tuning
    assert found is not None
    made = Tuned(found, {"layer": weight}, steps=1, seed=0)
    adapter: Any = made.adapters["layer"]
    adapter.b.data.normal_()
    expected = weight + 3 * adapter.b.data @ adapter.a.data
    assert torch.allclose(made.weight("layer", weight).detach(), expected, atol=1e-6)


def test_a_layer_keeps_the_best_of_the_units_that_are_left() -> None:
    """Another one that was cut may have come to count more since."""
    weights = {"small": torch.tensor([[1.0], [2.0], [3.0]]), "large": 10 * torch.ones(3, 1)}
    found = method(tuning={"rank": 1, "density": 0.5, "prune": {
        "layers": ["*"], "every": 1, "ends": 0.1, "salience": "magnitude",
    }}).tuning  # fmt: skip
    assert found is not None
    made = Tuned(found, weights, steps=10, seed=0)
    units: Any = made.units["small"]
    units.alive[2] = False
    made.observe(0)
    assert made.alive["small"].tolist() == [False, True, False]


def test_the_divergence_of_outputs_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(3, 4, 7, generator=generator, dtype=torch.float64) for _ in "ab")
    p, q = (scipy.special.softmax(x.reshape(12, 7).numpy(), axis=1) for x in (theirs, ours))
    expected = scipy.stats.entropy(p, q, axis=1).mean()
    assert float(outputs_divergence(ours, theirs)) == pytest.approx(expected, rel=1e-5)
    assert float(outputs_divergence(ours, ours)) == pytest.approx(0, abs=1e-7)


def test_the_teacher_takes_the_place_of_labels_while_units_are_cut() -> None:
    weights = {"0": torch.zeros(16, 16)}
    prune = Pruning(layers=("0",), ends=0.5)
    made = Tuned(Tuning(rank=2, density=0.5, prune=prune, distill=Distillation()), weights,
                 steps=20, seed=0)  # fmt: skip
    assert [made.share_taught(step) for step in (0, 1, 5, 10, 19)] == [0, 0.1, 0.5, 0, 0]
    alone = Tuned(Tuning(rank=2, density=0.5, prune=prune), weights, steps=20, seed=0)
    assert alone.share_taught(10) == 0
    assert not list(alone.teachers)


def test_the_teacher_is_the_network_with_nothing_cut_and_followed_adapters() -> None:
    """Worked out beside it: both networks of two layers, adapters added by hand."""
    given = method(roles=EXACT, tuning=tuned(
        density=0.5, prune=CUT, distill={"momentum": 0.75},
    ))  # fmt: skip
    run = Run(given, Stripes(), 3, steps=STEPS)
    followed: Tensor | None = None
    while not run.done:
        run.advance()
        made = run._model.tuned
        if made is not None:
            b = cast("Adapter", made.adapters["0"]).b.detach().clone()
            followed = 0.25 * b if followed is None else 0.75 * followed + 0.25 * b
    made = run._model.tuned
    assert made is not None
    assert followed is not None
    assert torch.allclose(cast("Adapter", made.teachers["0"]).b, followed, atol=1e-7)
    assert not any(one.requires_grad for one in made.teachers.parameters())
    batch = Stripes().batch(3, 99)

    def outputs(adapters: nn.ModuleDict, mask: Tensor) -> Tensor:
        weights = dict(run._model.model.named_parameters())
        first, second = (
            weights[f"{key}.weight"] + 2 * (one.b * one.active) @ one.a
            for key, one in ((key, cast("Adapter", one)) for key, one in adapters.items())
        )
        hidden = (batch.inputs @ first.T + weights["0.bias"]) * mask
        return torch.relu(hidden) @ second.T + weights["2.bias"]

    logits = outputs(made.adapters, cast("Units", made.units["0"]).mask).detach()
    assert torch.allclose(run._model(batch.inputs), logits, atol=1e-5)
    assert int(made.alive["0"].sum()) == 8
    taught = outputs(made.teachers, torch.ones(16)).detach()
    loss = outputs_loss(logits, batch.labels)
    share = made.share_taught(2)
    assert 0 < share < 1
    expected = (1 - share) * loss + share * outputs_divergence(logits, taught)
    found = run._taught(loss, logits, batch, 2)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)
    assert float(run._taught(loss, logits, batch, 0)) == float(loss)
    assert float(run._taught(loss, logits, batch, STEPS)) == float(loss)
    assert run._model.training


def test_a_teacher_leaves_no_trace_in_what_scales_remember() -> None:
    """Delayed scales are of the network that is trained."""
    delayed = load_method("fp8_delayed")
    kept = []
    for distill in (None, Distillation()):
        tuning = Tuning(rank=2, begins=0.25, density=0.5, distill=distill,
                        prune=Pruning(layers=("0",), every=STEPS, ends=1.0))  # fmt: skip
        run = Run(replace(delayed, tuning=tuning), Stripes(), 0, steps=STEPS)
        while not run.done:
            run.advance()
        state = run._model.get_extra_state()
        kept.append((state["calls"], {key: len(one) for key, one in state["remembered"].items()}))
    assert kept[0][0] == STEPS
    assert any(kept[0][1].values())
    assert kept[0] == kept[1]
