"""Arguments and results of a network: names, example inputs, dynamic sizes, by kind of network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dse.imports.complex import RealPairs
from dse.imports.names import PAST, PRESENT
from dse.imports.parameters import Source, assembled

BATCH, SEQUENCE = 2, 5
"""Sizes of the example: unequal, and none of them 0 or 1, which torch specialises on."""
OUTPUTS = ("logits", "logits_per_image", "last_hidden_state", "prediction_logits", "image_embeds")
"""Results of a network that are taken: the first that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs of a network with names of their dynamic axes."""

    inputs: Mapping[str, Tensor]
    dims: Mapping[str, Mapping[int, str]]
    keywords: Mapping[str, Any]
    """Further arguments of the network's call."""


def signature(network: Any) -> Signature:
    """The inputs of a network."""
    inputs: dict[str, Tensor] = {}
    dims: dict[str, dict[int, str]] = {}
    config = network.config
    text = {0: "batch", 1: "sequence"}
    main = network.main_input_name
    if main == "input_features":
        frames = 2 * config.max_source_positions
        inputs[main] = torch.zeros(BATCH, config.num_mel_bins, frames)
        dims[main] = {0: "batch"}
    if main == "pixel_values" or hasattr(config, "vision_config"):
        vision = getattr(config, "vision_config", config)
        size = vision.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        inputs["pixel_values"] = torch.zeros(BATCH, vision.num_channels, height, width)
        dims["pixel_values"] = {0: "batch"}
    if main == "input_ids":
        inputs[main] = _tokens()
        dims[main] = text
        if not is_causal(network):
            inputs["attention_mask"] = _tokens()
            dims["attention_mask"] = text
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _tokens()
        dims["decoder_input_ids"] = {0: "batch", 1: "target"}
    return Signature(inputs=inputs, dims=dims, keywords={"return_dict": True})


def is_causal(network: Any) -> bool:
    """Whether a network predicts the next token from those before."""
    return bool(network.can_generate()) and not network.config.is_encoder_decoder


def _tokens() -> Tensor:
    return torch.ones(BATCH, SEQUENCE, dtype=torch.int64)


class Assembled(nn.Module):
    """A network whose parameters are made of stored tensors in every forward pass.

    Caches among the inputs (`dse.imports.cache`) make those of the next call outputs.
    """

    def __init__(
        self,
        network: Any,
        stored: Mapping[str, Tensor],
        made_from: Sequence[Source],
        tied: Sequence[tuple[str, ...]],
        keywords: Mapping[str, Any],
        *,
        tell: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`tell` hears the result's name: attributes are restored after a trace."""
        super().__init__()
        self.network = network
        self.names = tuple(stored)
        self.stored = nn.ParameterList(
            nn.Parameter(value, requires_grad=False) for value in stored.values()
        )
        self.tell = tell
        self.made_from, self.tied, self.keywords = tuple(made_from), tuple(tied), dict(keywords)

    def __repr__(self) -> str:  # torch's exporter prints it; the network's own would read weights
        return type(self.network).__name__

    def forward(self, inputs: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        """The network's main output, and the caches where some are among the inputs."""
        from dse.imports.cache import content, filled  # noqa: PLC0415

        past = {name: value for name, value in inputs.items() if name.startswith(PAST)}
        if not past:
            return self.result(inputs, self._no_cache())
        cache = filled(self.network, past)
        rest = {name: value for name, value in inputs.items() if name not in past}
        value = self.result(rest, cache)
        return value, *content(cache, PRESENT).values()

    def result(self, inputs: Mapping[str, Tensor], cache: Any) -> Tensor:
        """The network's main output; `cache` holds the keys and values afterwards."""
        stored = dict(zip(self.names, self.stored, strict=True))
        parameters = assembled(self.network, stored, self.made_from, self.tied)
        keywords = {**self.keywords, **self._cache_keyword(cache)}
        with RealPairs():
            result = torch.func.functional_call(
                self.network, parameters, (), {**inputs, **keywords}
            )
        name = output_name(result)
        self.tell(name)
        value: Tensor = result[name]
        return value

    def _cache_keyword(self, cache: Any) -> dict[str, Any]:
        """The keyword that a network takes its cache by; transformers renamed it in version 5."""
        known = inspect.signature(self.network.forward).parameters
        name = "cache" if "cache" in known else "past_key_values"
        return {} if cache is None else {name: cache}

    def _no_cache(self) -> Any:
        from transformers import DynamicCache  # noqa: PLC0415

        # With a cache, even an empty one, transformers does not look for packed sequences.
        return DynamicCache() if is_causal(self.network) else None


def output_name(result: Any) -> str:
    """Results of a network that a graph gives."""
    names = [name for name, value in result.items() if isinstance(value, Tensor)]
    return next((name for name in OUTPUTS if name in names), names[0])
