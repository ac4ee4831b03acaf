"""Methods of recipes.yaml, and the rows of the published table that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dse.training.load import FOLDER, method_of
from dse.training.method import Method

PLACE = Path(__file__).with_name("recipes.yaml")
TURNED = {"hadamard": 128, "signs": "fresh"}
ROUNDINGS: Mapping[str, Mapping[str, Any]] = {
    "eden": {"format": "nvfp4", **TURNED, "scales": "eden", "headroom": 0.988},
    "random": {"format": "nvfp4:stochastic", **TURNED, "headroom": 1.0625},
    "random_plain": {"format": "nvfp4:stochastic", "headroom": 1.0625},
    "mx_nearest": {"format": "e2m1@g32/e8m0-rceil", "hadamard": 32, "signs": "fresh"},
    "mx_random": {"format": "e2m1@g32/e8m0-rceil:stochastic", "hadamard": 32, "signs": "fresh"},
}
"""Quantizers of backward products, as the repository of the table has them."""
ROLES = {
    ("dgrad", "error"): "activation_gradient@dgrad",
    ("dgrad", "weight"): "weight@dgrad",
    ("wgrad", "error"): "activation_gradient@wgrad",
    ("wgrad", "activation"): "activation@wgrad",
}
HEAD = {"match": {"name": "*head*", "optional": True}, "roles": {"*": "bf16"}}


@dataclass(frozen=True)
class Recipe:
    name: str
    method: Method
    published: Mapping[str, str]
    """Columns of its rows."""

    @property
    def kind(self) -> str:
        """What it rounds: forward products, backward products, or both."""
        if self.published["group"].startswith("forward"):
            return "forward"
        backward = self.published["group"] in ("backward_main", "backward_quartet", "bnrq")
        return "backward" if backward else "full"


def recipes() -> tuple[Recipe, ...]:
    content = yaml.safe_load(PLACE.read_text(encoding="utf-8"))
    return tuple(
        Recipe(
            name=name,
            method=method_of(_method(one), origin=f"{PLACE.name}: {name}"),
            published={key: str(value) for key, value in one["published"].items()},
        )
        for name, one in content.items()
    )


def _method(one: Mapping[str, Any]) -> dict[str, Any]:
    source = "IST-DASLab/Quartet-II, src/models/quantization; arXiv 2601.22813"
    if "shipped" in one:
        path = FOLDER / f"{one['shipped']}.yaml"
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {**found, "source": source, "roles": {**found["roles"], **one.get("roles", {})}}
    roles: dict[str, Any] = {}
    if "forward" in one:
        roles["weight@fprop"] = roles["activation@fprop"] = one["forward"]
        roles["weight@dgrad"] = roles["activation@wgrad"] = {"format": "bf16", "of": "forward"}
    for (pass_, what), role in ROLES.items():
        if what in one.get(pass_, {}):
            roles[role] = ROUNDINGS[one[pass_][what]]
    return {"source": source, "roles": roles, "rules": [HEAD]}
