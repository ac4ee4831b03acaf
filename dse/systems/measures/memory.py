"""Bytes and bits of methods of training: states, a whole step, what is sent, products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from dse.errors import StudyError
from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.tensors import Size
from dse.training.ledger import bit_products, decoder_sizes, ledger, sent_bytes, state_bytes
from hwmodels.validation import Entry

GIGA = 1e9
Methods = Annotated[Mapping[str, MethodGiven], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes(Entry):
    """Bytes a parameter of weights, gradients and moments, and of what clients send."""

    draws: ClassVar[bool] = False
    methods: Methods
    """By name."""

    def rows(self, seed: int) -> Rows:
        """`<name>`, and `<name> sent` both ways in a round."""
        del seed
        found: dict[str, float] = {}
        for name, given in self.methods.items():
            method = given_method(given)
            found |= {name: state_bytes(method), f"{name} sent": sent_bytes(method)}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderMemory(Entry):
    """Gigabytes of a training step of a decoder on one of several GPUs."""

    draws: ClassVar[bool] = False
    methods: Methods
    """By name."""
    layers: Size
    """Blocks."""
    width: Size
    """Of the residual stream."""
    ffn: Size
    """Of the feed-forward block."""
    vocabulary: Size
    """Rows of embedding and head."""
    batch: Size
    """Sequences on one GPU."""
    sequence: Size
    """Tokens of each."""
    gpus: Size = 1
    """Share weights, gradients and moments."""

    def rows(self, seed: int) -> Rows:
        """`<name>` in all, `<name> states` without activations, `<name> activations`."""
        del seed
        sizes = decoder_sizes(
            layers=self.layers, width=self.width, ffn=self.ffn, vocabulary=self.vocabulary,
            batch=self.batch, sequence=self.sequence, gpus=self.gpus,
        )  # fmt: skip
        found: dict[str, float] = {}
        for name, given in self.methods.items():
            one = ledger(given_method(given), sizes, gpus=self.gpus)
            states = one.weights + one.gradients + one.moments
            found |= {name: one.total / GIGA, f"{name} states": states / GIGA,
                      f"{name} activations": one.activations / GIGA}  # fmt: skip
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost(Entry):
    """Bit products of a method with stages, by shares of the run, over those of another one."""

    draws: ClassVar[bool] = False
    method: MethodGiven
    """With a schedule."""
    reference: MethodGiven
    """The method that it is held against."""
    shares: Annotated[Mapping[str, tuple[float, ...]], Field(min_length=1)]
    """Shares of the run of each stage, by name."""

    def rows(self, seed: int) -> Rows:
        """One ratio a set of shares.

        Raises:
            StudyError: no stages, or another number of shares.
        """
        del seed
        method = given_method(self.method)
        stages = method.schedule.stages if method.schedule else ()
        costs = [
            bit_products(replace(method, schedule=None, roles={**method.roles, **stage}))
            for stage in stages
        ]
        whole = bit_products(given_method(self.reference))
        found = {}
        for name, shares in self.shares.items():
            if len(shares) != len(costs):
                raise StudyError(f"shares.{name}: expected {len(costs)} stages, got {len(shares)}")
            mixed = sum(share * cost for share, cost in zip(shares, costs, strict=True))
            found[name] = mixed / sum(shares) / whole
        return found
