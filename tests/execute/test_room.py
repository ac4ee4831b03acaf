"""Memory is dealt out: what must fit, what stays, and what is made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dse.errors import GraphError
from dse.execute import room
from dse.execute.memory import Caches, Need
from dse.execute.room import Room, room_for, room_on_device
from dse.graph.ir.graph import Graph

MEGA = 10**6
NEED = Need(
    weight_bytes=0,
    mapped_bytes=1000 * MEGA,
    layer_bytes=50 * MEGA,
    activation_bytes=50 * MEGA,
    copies_bytes=1000 * MEGA,
    output_bytes=40 * MEGA,
    waiting_bytes=5 * MEGA,
    batches=8,
    splits=2,
    caches=Caches(weight_bytes=800 * MEGA, trace_bytes=300 * MEGA),
)
"""Weights of which not all copies stay, and 640 MB of distributions."""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Sets what the machine has."""
    return lambda megas: monkeypatch.setattr(room, "available_bytes", lambda: megas * MEGA)


GRAPH = Graph(name="g", nodes=(), inputs=(), outputs=(), initializers={}, types={}, opsets={})


def test_much_room_keeps_all_but_copies_that_no_cache_holds(free) -> None:
    free(10_000)
    assert room_for(NEED, GRAPH) == Room(
        in_step=8, caches=Caches(weight_bytes=100 * MEGA, trace_bytes=300 * MEGA)
    )


def test_copies_that_fit_their_cache_stay(free) -> None:
    free(10_000)
    small = replace(NEED, copies_bytes=800 * MEGA)
    assert room_for(small, GRAPH) == Room(caches=NEED.caches)


def test_distributions_that_take_more_than_half_are_made_again(free) -> None:
    free(100 + 2 * 640)
    assert room_for(NEED, GRAPH).keeps_references
    free(100 + 2 * 640 - 1)
    assert not room_for(NEED, GRAPH).keeps_references


def test_all_that_is_dealt_out_fits(free) -> None:
    for megas in range(101, 3000, 7):
        free(megas)
        found = room_for(NEED, GRAPH)
        held = NEED.reference_bytes if found.keeps_references else 0
        held += found.caches.bytes + (found.in_step - 1) * NEED.waiting_bytes
        assert NEED.total_bytes + held <= megas * MEGA


def test_a_limit_counts_what_the_process_holds_already(free, monkeypatch) -> None:
    free(10_000)
    monkeypatch.setattr(room, "held_bytes", lambda: 300 * MEGA)
    with pytest.raises(GraphError, match=r"will need about 0\.1 GB.*0\.099 GB of them within"):
        room_for(NEED, GRAPH, limit_bytes=399 * MEGA)
    assert not room_for(NEED, GRAPH, limit_bytes=401 * MEGA).keeps_references


DEVICE = replace(NEED, copies_bytes=400 * MEGA, caches=Caches(weight_bytes=400 * MEGA))
"""Weights of 1,000 MB, 100 MB to work in."""


def test_weights_stay_on_a_device_that_has_room_for_them() -> None:
    found = room_on_device(DEVICE, GRAPH, free_bytes=10_000 * MEGA)
    assert found == Room(caches=DEVICE.caches)


def test_weights_that_a_device_has_no_room_for_stream() -> None:
    usable = 1000 + 100
    fits = room_on_device(DEVICE, GRAPH, free_bytes=int(usable * MEGA / room.USABLE) + 1)
    assert not fits.streams
    found = room_on_device(DEVICE, GRAPH, free_bytes=int((usable - 1) * MEGA / room.USABLE))
    assert found.streams
    assert found.caches.weight_bytes > 0


def test_a_limit_makes_them_stream_too() -> None:
    found = room_on_device(DEVICE, GRAPH, free_bytes=10_000 * MEGA, limit_bytes=900 * MEGA)
    assert found.streams
    assert found.caches.bytes <= (900 - 150) * MEGA


def test_a_device_that_holds_no_layer_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        GraphError, match=r"0\.15 GB, the accelerator has 0\.14 GB within --memory"
    ):
        room_on_device(DEVICE, GRAPH, free_bytes=10_000 * MEGA, limit_bytes=140 * MEGA)
