"""Shallow water against what its equations conserve and how their waves travel."""

from __future__ import annotations

import math

import pytest
import torch

from dse.numerics import quantize
from dse.systems.measures import shallow_water
from dse.systems.measures.physics import rounder
from dse.systems.measures.shallow_water import GRAVITY, ROTATION, STEP, Flow, ShallowWater
from hwmodels.formats.catalog import quantizer

CELLS = (4, 64)


def still(monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A flat bottom without wind and friction, nothing rounded."""
    monkeypatch.setattr(shallow_water, "DRAG", 0.0)
    monkeypatch.setattr(shallow_water, "VISCOSITY", 0.0)
    depth = torch.ones(CELLS[1], dtype=torch.float64)
    wind = torch.zeros(CELLS[0], 1, dtype=torch.float64)
    return Flow(depth=depth, wind=wind, round_=rounder(None, 0))


def test_a_standing_wave_turns_as_its_dispersion_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """omega^2 = f^2 + g k^2; what the rotation holds in balance stays."""
    flow = still(monkeypatch)
    wave = 2 * math.pi / CELLS[1]
    x = torch.arange(CELLS[1], dtype=torch.float64)
    state = torch.zeros(3, 1, *CELLS, dtype=torch.float64)
    state[2] = 1e-4 * torch.cos(wave * x)
    steps = 40
    for _ in range(steps):
        state = flow.advanced(state)
    square = ROTATION**2 + GRAVITY * wave**2
    moving = GRAVITY * wave**2 * math.cos(math.sqrt(square) * steps * STEP)
    expected = 1e-4 * (ROTATION**2 + moving) / square * torch.cos(wave * x)
    torch.testing.assert_close(state[2, 0, 0], expected, rtol=0, atol=2e-7)


def test_water_is_neither_made_nor_lost() -> None:
    water = ShallowWater(formats=("fp32",), members=1, cells=(8, 16))
    flow = Flow.over((8, 16), torch.float64, rounder(None, 0))
    state = water._start(3)
    for _ in range(50):
        state = flow.advanced(state)
    assert state[0].abs().max() > 1e-3
    assert abs(float(state[2].sum())) < 1e-12


def test_water_at_rest_stays_at_rest_over_a_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shallow_water, "WIND", 0.0)
    flow = Flow.over((8, 16), torch.float64, rounder(None, 0))
    state = torch.zeros(3, 1, 8, 16, dtype=torch.float64)
    assert torch.equal(flow.advanced(state), state)


def test_every_result_is_a_number_of_the_format() -> None:
    flow = Flow.over((8, 16), torch.float32, rounder("e8m6", 0))
    state = ShallowWater(formats=("e8m6",), members=1, cells=(8, 16))._start(0).float()
    for _ in range(3):
        state = flow.advanced(state)
    assert torch.equal(state, quantize(state, quantizer("e8m6"), axes=(-1,)))


def test_an_ensemble_in_float32_is_as_far_as_others_in_float64() -> None:
    water = ShallowWater(
        formats=("fp32", "e8m3"), members=2, pairs=2, cells=(8, 16), spin_up=100, steps=100
    )
    found = water.rows(0)
    assert 0 < found["fp32"] < 4 * found["floor"]
    assert found["e8m3"] > 4 * found["fp32"]
