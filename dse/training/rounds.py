"""Federated rounds: clients that train apart, and a server that averages what they send."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dse.training.method import Method, Operand, Rounds
from dse.training.roles import SENT, formats_of_parameter
from dse.training.rounding import Draw, rounded
from dse.training.update.optimizer import Optimizer

Values = dict[str, Tensor]
"""Parameters and buffers by name."""


def sent(values: Tensor, operand: Operand, *, draw: Draw) -> Tensor:
    """A tensor as the other side gets it: float32, the same shape."""
    return rounded(values, operand, axes=(-1,), draw=draw)


def average(parts: Iterable[Tensor], shares: Sequence[float] = ()) -> Tensor:
    """The mean of tensors of one shape, summed in float64.

    Args:
        parts: At least one.
        shares: What each counts, 1 together; all the same by default.
    """
    stacked = torch.stack([one.double() for one in parts])
    if not shares:
        return stacked.mean(0).float()
    weights = torch.tensor(shares).to(stacked).reshape(-1, *[1] * (stacked.dim() - 1))
    return (weights * stacked).sum(0).float()


@dataclass(slots=True, kw_only=True, eq=False)
class _Client:
    """A copy of the network that trains by itself."""

    values: Values
    optimizer: Optimizer


class Federation:
    """Clients in turn in one module, and the server's average.

    In each round every client begins with what the server sends, with moments of zero, trains for
    some steps and sends its weights; the server keeps their mean in float32, where data are dealt
    by the number of samples of each. Buffers are averaged,
    too, and are sent as they are.

    Source: federated averaging, arXiv 1602.05629, algorithm 1; formats of what is sent: FP8FedAvg,
    arXiv 2407.02610, section 3.
    """

    def __init__(
        self,
        settings: Rounds,
        model: nn.Module,
        method: Method,
        *,
        blocks: int,
        make: Callable[[int], Optimizer],
        seed: int,
        shares: Sequence[float] = (),
    ) -> None:
        """A federation before its first round.

        Args:
            settings: Clients and steps of a round.
            model: The module that all clients use in turn; its weights are the server's.
            method: Formats of what is sent.
            blocks: Blocks of the model, for rules that count them.
            make: A fresh optimizer on the module's parameters, by the seed of what it draws.
            seed: Of stochastic rounding.
            shares: Of each client in the average; equal by default.
        """
        self._shares = shares
        self._settings, self._model, self._make, self._seed = settings, model, make, seed
        self._operands = {
            name: {
                role: formats_of_parameter(method, name, blocks).operand(role, pass_)
                for role, pass_ in SENT.items()
            }
            for name, _ in model.named_parameters()
        }
        self._server: Values = self._copied()
        self._clients: list[_Client] = []
        self._steps = 0

    @property
    def count(self) -> int:
        """Clients."""
        return self._settings.clients

    def clients(self) -> Iterator[tuple[int, Optimizer]]:
        """Puts one client after the other into the module, for a step of each."""
        if self._steps % self._settings.every == 0:
            self._begin()
        for number, client in enumerate(self._clients):
            self._put(client.values)
            yield number, client.optimizer
            client.values = self._copied()
        self._steps += 1
        if self._steps % self._settings.every == 0:
            self.gather()

    def _begin(self) -> None:
        """Sends the server's weights."""
        start = {
            name: self._sent(name, x, "communication_down", "down")
            for name, x in self._server.items()
        }
        for number in range(self._settings.clients):
            self._put(start)
            optimizer = self._fresh(number)
            self._clients.append(_Client(values=self._copied(), optimizer=optimizer))

    def gather(self) -> None:
        """Averages what the clients send; the module then has the server's weights."""
        if self._clients:
            self._server = {
                name: average(
                    (
                        self._sent(name, client.values[name], "communication_up", f"up {number}")
                        for number, client in enumerate(self._clients)
                    ),
                    self._shares,
                ).to(x.dtype)
                for name, x in self._server.items()
            }
        self._clients = []
        self._put(self._server)

    def _sent(self, name: str, x: Tensor, role: str, what: str) -> Tensor:
        if name not in self._operands:
            return x  # a buffer
        draw = Draw(rounding=self._number(f"{name} {what}"))
        return sent(x, self._operands[name][role], draw=draw)

    def _fresh(self, client: int) -> Optimizer:
        """The optimizer of a client in the round that is on."""
        text = f"{self._seed} {self._steps // self._settings.every} client {client}"
        return self._make(zlib.crc32(text.encode()))

    def _number(self, what: str) -> int:
        """A seed of its own for everything that is sent."""
        return zlib.crc32(f"{self._seed} {self._steps} {what}".encode())

    def _copied(self) -> Values:
        return {name: x.detach().clone() for name, x in self._model.state_dict().items()}

    @torch.no_grad()
    def _put(self, values: Values) -> None:
        for name, x in self._model.state_dict().items():
            x.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs."""
        return {
            "steps": self._steps,
            "server": self._server,
            "clients": {
                str(number): {"values": one.values, "optimizer": one.optimizer.state_dict()}
                for number, one in enumerate(self._clients)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another one was."""
        self._steps, self._server = state["steps"], dict(state["server"])
        self._clients = []
        for number, kept in state["clients"].items():
            optimizer = self._fresh(int(number))
            optimizer.load_state_dict(kept["optimizer"])
            self._clients.append(_Client(values=dict(kept["values"]), optimizer=optimizer))
