"""Federated rounds: what is sent, what is averaged, and runs in pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dse.numerics import quantize
from dse.training import rounds
from dse.training.ledger import sent_bytes
from dse.training.load import load_method
from dse.training.method import Operand
from dse.training.rounding import Draw
from dse.training.rounds import Federation, average, sent
from dse.training.run import Run, shape
from dse.training.update.optimizer import Optimizer
from hwmodels.formats.catalog import quantizer
from tests.training.methods import method
from tests.training.test_run import STEPS, Stripes, finished, in_pieces

EXACT = {"*": "fp32", "communication_down": "fp32"}


def averaged(format: str, clients: int) -> float:
    """Relative error of the mean of what equal clients send."""
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    operand = Operand(format=format)
    parts = (sent(x, operand, draw=Draw(rounding=one)) for one in range(clients))
    return float((average(parts) - x).norm() / x.norm())


def test_only_random_rounding_averages_out() -> None:
    """FP8FedAvg, arXiv 2407.02610: the error of the mean of n equal clients in E4M3."""
    nearest = [averaged("e4m3_tensor", one) for one in (1, 10, 100)]
    assert nearest == pytest.approx([0.0266] * 3, rel=0.03)
    drawn = [averaged("e4m3_tensor:stochastic", one) for one in (1, 10, 100)]
    assert drawn == pytest.approx([0.0376, 0.0120, 0.0037], rel=0.05)


def test_one_round_of_one_step_is_the_mean_of_steps() -> None:
    """SGD without momentum: averaging clients after a step is a step on all of their data."""
    update = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "clip_norm": 0}
    found = method(roles=EXACT, update=update, rounds={"clients": 3, "every": 1})
    workload = Stripes()
    run = Run(found, workload, 2, steps=STEPS)
    model = workload.model(2)
    for step in range(3):
        run.advance()
        losses = [
            nn.functional.cross_entropy(model(one.inputs), one.labels)
            for one in (workload.batch(2, 3 * step + client) for client in range(3))
        ]
        loss = sum(losses, torch.zeros(())) / 3
        model.zero_grad()
        loss.backward()
        assert run.curve.loss[-1] == pytest.approx(float(loss.detach()), abs=1e-6)
        with torch.no_grad():
            for one in model.parameters():
                assert one.grad is not None
                one.sub_(workload.sgd_rate * shape(step, STEPS) * one.grad)
    ours = weights(run)
    for name, value in model.state_dict().items():
        assert torch.allclose(ours[name], value, atol=1e-6), name


def weights(run: Run) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in run._model.model.state_dict().items()}


def test_clients_begin_with_what_they_are_sent() -> None:
    roles = {**EXACT, "communication_down": "int3_channel"}
    found = method(roles=roles, rounds={"clients": 2, "every": 4})
    run = Run(found, Stripes(), 0, steps=STEPS)
    before = weights(run)["0.weight"]
    assert run._federation is not None
    next(run._federation.clients())
    assert torch.equal(
        weights(run)["0.weight"], quantize(before, quantizer("int3_channel"), axes=(1,))
    )


@pytest.mark.parametrize("pause", [5, 8])
def test_rounds_in_pieces_are_those_in_one(pause: int, tmp_path: Path) -> None:
    roles = {"*": "e4m3_tensor", "communication_up": "e4m3_tensor:stochastic"}
    update = {"mode": "stochastic"}
    kept = {"master_weight": "bf16"}
    found = method(roles=roles | kept, update=update, rounds={"clients": 3, "every": 4})
    whole = finished(found, Stripes(), 1)
    assert in_pieces(found, pause, tmp_path) == whole
    assert whole.last is not None
    assert whole.last.loss < whole.first.loss


def test_a_client_without_numbers_ends_the_run() -> None:
    found = method(roles={"*": "bf16"}, rounds={"clients": 2, "every": 2})
    run = Run(found, Stripes(broken=0), 0, steps=STEPS)
    while not run.done:
        run.advance()
    assert run.outcome().diverged_at == STEPS // 4


def test_the_shipped_federation_sends_a_quarter_of_the_bytes() -> None:
    found = load_method("fp8_federated")
    assert sent_bytes(found) == pytest.approx(2, abs=0.01)
    wide = method(roles={"communication_down": "fp32"}, rounds={"clients": 8})
    assert sent_bytes(wide) == 8
    assert sent_bytes(method()) == 0


def test_clients_draw_for_themselves_in_training_and_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent_draws: list[int] = []
    made: list[int] = []

    def recorded(values: Tensor, operand: Operand, *, draw: Draw) -> Tensor:
        sent_draws.append(draw.rounding)
        return sent(values, operand, draw=draw)

    monkeypatch.setattr(rounds, "sent", recorded)
    model = nn.Linear(3, 2, bias=False)
    given = method(rounds={"clients": 3, "every": 1})
    assert given.rounds is not None

    def make(seed: int) -> Optimizer:
        made.append(seed)
        return Optimizer(model.named_parameters(), given, seed=seed)

    federation = Federation(given.rounds, model, given, blocks=0, make=make, seed=5)
    for _ in range(2):
        assert [number for number, _ in federation.clients()] == [0, 1, 2]
    assert len(set(made)) == len(made) == 6
    assert len(set(sent_draws)) == len(sent_draws) == 2 * (1 + 3)
