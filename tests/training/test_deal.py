"""Training data dealt to clients: disjoint, skewed as asked, the same for all methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from dse.cli.app import run as cli
from dse.errors import MethodError
from dse.training.method import Rounds, Split
from dse.training.rounds import average
from dse.training.run import Run
from dse.training.workloads.byte_gpt import ByteGpt
from dse.training.workloads.catalogue import workload
from dse.training.workloads.deal import LEAST, dealt, shares
from dse.training.workloads.digits import Digits
from dse.training.workloads.workload import Batch, Divisible
from tests.training.methods import method
from tests.training.test_run import Stripes

SPLITS = {
    "even": Split(kind="even"),
    "dirichlet": Split(kind="dirichlet", concentration=0.3),
    "shards": Split(kind="shards"),
}
CLIENTS = 8


def parts_of(network: Any, kind: str, *, seed: int = 0, clients: int = CLIENTS) -> list[Tensor]:
    return list(dealt(network, Rounds(clients=clients, split=SPLITS[kind]), seed=seed))


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("name", ["digits-mlp", "byte-gpt-64-1"])
def test_every_unit_has_one_client(name: str, kind: str) -> None:
    network = workload(name)
    assert isinstance(network, Divisible)
    parts = parts_of(network, kind)
    together = torch.cat(parts).sort().values
    assert torch.equal(together, torch.arange(len(network.units().groups)))
    assert min(len(part) for part in parts) >= LEAST
    again, other = parts_of(network, kind), parts_of(network, kind, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(parts, other, strict=True))


class Recorded(Digits):
    """Digits whose images have numbers, which batches are written down by."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["seen"] = []

    def batch_of(self, units: Tensor, seed: int, step: int) -> Batch:
        """Notes the step and the images."""
        found = super().batch_of(units, seed, step)
        self.__dict__["seen"].append((step, found.inputs))
        return found


def test_clients_of_a_run_never_see_the_same_sample() -> None:
    """Over a run: and two methods see the same samples at the same client and step."""
    logs = []
    for format in ("fp32", "int4_channel"):
        network = Recorded()
        rounds = {"clients": 4, "every": 3, "split": {"kind": "dirichlet", "concentration": 0.5}}
        run = Run(method(roles={"*": format}, rounds=rounds), network, 2, steps=12)
        while not run.done:
            run.advance()
        logs.append(network.__dict__["seen"])
    first, second = logs
    assert [step for step, _ in first] == [step for step, _ in second] == list(range(48))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    found: list[set[bytes]] = [set() for _ in range(4)]
    for step, images in first:
        found[step % 4] |= {row.numpy().tobytes() for row in images}
    for one in range(4):
        for other in range(one):
            assert not found[one] & found[other]


def test_clients_of_a_text_share_no_token() -> None:
    network = workload("byte-gpt-64-1")
    assert isinstance(network, ByteGpt)
    length = int(network.units().sizes.sum())
    vars(network)["_text"] = torch.arange(length)  # every token another one
    parts = parts_of(network, "dirichlet")
    seen = []
    for part in parts:
        batches = [network.batch_of(part, 0, step) for step in range(200)]
        seen.append(torch.cat([one.inputs.flatten() for one in batches]).unique())
        ours = numpy.zeros(length + 1, dtype=bool)
        ends = network.units().sizes.cumsum(0)
        for unit in part.tolist():
            ours[int(ends[unit] - network.units().sizes[unit]) : int(ends[unit])] = True
        assert ours[seen[-1].numpy()].all()
        assert all(ours[one.labels.numpy()].all() for one in batches)
    assert len(torch.cat(seen).unique()) == sum(len(one) for one in seen)


def groups_of(network: Divisible, part: Tensor) -> numpy.ndarray:
    counts = numpy.bincount(network.units().groups[part].numpy(), minlength=10)
    return counts / counts.sum()


def test_a_small_concentration_leaves_a_client_few_labels() -> None:
    """The distance of a client's labels from all labels: none, some, nearly all."""
    network = Digits()
    whole = groups_of(network, torch.arange(len(network.units().groups)))

    def distance(split: Split) -> float:
        parts = dealt(network, Rounds(clients=CLIENTS, split=split), seed=0)
        apart = [abs(groups_of(network, part) - whole).sum() / 2 for part in parts]
        return float(numpy.mean(apart))

    skewed, mild, alike = (
        distance(Split(kind="dirichlet", concentration=one)) for one in (0.1, 1.0, 1e4)
    )
    assert skewed > 0.55 > mild > 0.2 > alike
    assert distance(Split(kind="even")) < 0.15
    sharded = parts_of(network, "shards")
    assert max((groups_of(network, part) > 0).sum() for part in sharded) <= 4
    assert max(map(len, sharded)) - min(map(len, sharded)) <= 2


def test_shares_of_a_label_follow_the_dirichlet_distribution() -> None:
    """Variance of a share: (n - 1) / (n² (n a + 1)) for n clients and concentration a."""
    network = Digits()
    groups = network.units().groups
    counts = []
    for seed in range(200):
        parts = dealt(
            network,
            Rounds(clients=4, split=Split(kind="dirichlet", concentration=2.0)),
            seed=seed,
        )
        counts += [float((groups[part] == 3).sum() / (groups == 3).sum()) for part in parts]
    assert numpy.mean(counts) == pytest.approx(0.25, abs=1e-6)
    assert numpy.var(counts) == pytest.approx(3 / (16 * 9), rel=0.2)


def test_weights_count_by_samples() -> None:
    network = workload("byte-gpt-64-1")
    assert isinstance(network, Divisible)
    parts = dealt(network, Rounds(clients=3, split=SPLITS["shards"]), seed=0)
    sizes = network.units().sizes
    found = shares(network, parts)
    assert found == pytest.approx([int(sizes[part].sum()) / int(sizes.sum()) for part in parts])
    assert sum(found) == pytest.approx(1)
    assert shares(network, ()) == []
    ones = [torch.full((2, 3), float(value)) for value in (1, 10, 100)]
    assert torch.allclose(average(ones, [0.5, 0.3, 0.2]), torch.full((2, 3), 23.5))
    assert torch.allclose(average(ones), torch.full((2, 3), 37.0))


def test_a_server_weighs_clients_by_what_they_were_dealt() -> None:
    """One step of SGD without momentum: the mean of gradients by shares."""
    update = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "clip_norm": 0}
    rounds = {"clients": 3, "every": 1, "split": {"kind": "dirichlet", "concentration": 0.3}}
    roles = {"*": "fp32", "communication_down": "fp32"}
    network = Digits()
    run = Run(method(roles=roles, update=update, rounds=rounds), network, 0, steps=100)
    model = network.model(0)
    run.advance()
    parts = dealt(network, Rounds(clients=3, split=SPLITS["dirichlet"]), seed=0)
    loss = torch.zeros(())
    for client, (part, share) in enumerate(zip(parts, shares(network, parts), strict=True)):
        batch = network.batch_of(part, 0, client)
        loss = loss + share * torch.nn.functional.cross_entropy(model(batch.inputs), batch.labels)
    loss.backward()
    rate = network.sgd_rate / 5  # the first step of a rise over five
    after = run._model.model.state_dict()
    for name, one in model.named_parameters():
        assert one.grad is not None
        assert torch.allclose(after[name], one - rate * one.grad, atol=1e-6), name


@pytest.mark.parametrize("pause", [4, 7])
def test_dealt_data_in_pieces_are_those_in_one(pause: int, tmp_path: Path) -> None:
    rounds = {"clients": 3, "every": 4, "split": {"kind": "dirichlet"}}
    found = method(roles={"*": "e4m3_tensor"}, rounds=rounds)
    whole = Run(found, Digits(), 1, steps=12)
    while not whole.done:
        whole.advance()
    begun = Run(found, Digits(), 1, steps=12)
    for _ in range(pause):
        begun.advance()
    begun.save(tmp_path / "kept")
    resumed = Run(found, Digits(), 1, steps=12)
    resumed.resume(tmp_path / "kept")
    while not resumed.done:
        resumed.advance()
    assert resumed.outcome() == whole.outcome()


def test_what_cannot_be_dealt_is_refused() -> None:
    split = {"kind": "dirichlet", "concentration": 0.01}
    with pytest.raises(MethodError, match="of stripes cannot be dealt to clients"):
        Run(method(rounds={"clients": 2, "split": split}), Stripes(), 0, steps=1)
    with pytest.raises(
        MethodError, match=r"fewer than 10; expected fewer clients, or a conc.* 0\.01"
    ):
        dealt(Digits(), Rounds(clients=64, split=Split(**split)), seed=0)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="expected fewer clients or shards"):
        dealt(Digits(), Rounds(clients=200, split=SPLITS["shards"]), seed=0)
    assert dealt(Stripes(), Rounds(clients=2), seed=0) == ()


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("{kind: even, concentration: 2}", "rounds.split.concentration: even does not read it"),
        ("{kind: dirichlet, shards: 3}", "rounds.split.shards: dirichlet does not read it"),
        ("{kind: label}", "rounds.split.kind"),
        ("{kind: dirichlet, concentration: 0}", "rounds.split.concentration"),
    ],
)
def test_a_split_is_refused_by_field(
    split: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"source: me\nrounds: {{clients: 4, split: {split}}}\n")
    assert cli(["train", str(path), "--steps", "2"]) == 2
    assert words in capsys.readouterr().err


def test_a_deal_that_fails_is_told_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: me\nrounds: {clients: 500, split: {kind: even}}\n")
    assert cli(["train", str(path), "--steps", "2", "--out", str(tmp_path / "run")]) == 2
    assert "mine on digits-mlp: rounds.split: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
