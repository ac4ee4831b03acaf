"""What every role of a tensor promises, and where the table must agree with what users write."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import get_args

import pytest

from dse.graph.ir.site import Site
from dse.space.schema import Mode
from hwmodels.formats import catalog
from hwmodels.work.role import REGION_ROLES, ROLES, SEARCHED_ROLES, Pass, RegionRole, Role
from hwmodels.work.work import OperandName

TRAINING = (
    "weight", "master_weight", "activation", "saved_activation", "activation_gradient",
    "weight_gradient", "optimizer_m", "optimizer_v", "accumulator", "communication_up",
    "communication_down", "k_cache", "v_cache", "output",
)  # fmt: skip
WIDE = 16


@pytest.mark.parametrize("role", ROLES.values(), ids=lambda role: role.name)
def test_a_role_has_a_label_operands_and_candidates(role: Role) -> None:
    assert ROLES[role.name] is role
    assert role.label
    assert role.operands
    assert set(role.operands) <= set(get_args(Pass))
    assert set(role.operands.values()) <= set(get_args(OperandName))
    assert len(set(role.candidates)) == len(role.candidates) > 0
    bits = [catalog.quantizer(name).format.element.bits for name in role.candidates]
    assert bits[0] >= WIDE
    assert bits[0] == max(bits)


@pytest.mark.parametrize("name", get_args(Pass))
def test_an_operand_of_a_pass_is_one_role(name: Pass) -> None:
    operands = Counter(role.operands[name] for role in ROLES.values() if name in role.operands)
    del operands["other"]
    assert set(operands.values()) <= {1}


def test_the_labels_are_told_apart() -> None:
    assert len({role.label for role in ROLES.values()}) == len(ROLES)


def test_what_is_searched_is_multiplied_forward_and_is_what_a_mode_names() -> None:
    factors = {ROLES[name].operands["fprop"] for name in SEARCHED_ROLES}
    assert factors == {"input", "weight", "q", "k", "v", "probabilities"}
    assert {*SEARCHED_ROLES, "accumulator"} == set(Mode.model_fields) - {"name"}


@pytest.mark.parametrize("name", TRAINING)
def test_training_has_its_roles(name: str) -> None:
    assert name in ROLES


def test_the_three_products_of_training_have_both_factors() -> None:
    for name in ("fprop", "dgrad", "wgrad"):
        operands = {role.operands.get(name) for role in ROLES.values()}
        assert {"input", "weight"} <= operands


def test_a_site_of_another_pass_has_a_key_of_its_own() -> None:
    site = {"node": "n", "operand": "in0", "value": "x", "shape": (), "contraction_axes": ()}
    forward = Site(role="activation", **site)  # type: ignore[arg-type]
    backward = Site(role="activation", pass_="wgrad", **site)  # type: ignore[arg-type]
    assert (forward.key, backward.key) == ("n/in0", "n/in0@wgrad")


@pytest.mark.parametrize("role", REGION_ROLES.values(), ids=lambda role: role.name)
def test_a_role_of_a_region_says_something_and_names_what_is_there(role: RegionRole) -> None:
    defaults = RegionRole(name=role.name)
    assert any(getattr(role, f.name) != getattr(defaults, f.name) for f in fields(role))
    if role.routed:
        assert REGION_ROLES[role.routed].split == role.split
