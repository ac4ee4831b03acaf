"""States on disk come back with the same numbers."""

from __future__ import annotations

import pytest
import torch

from dse.errors import DseError
from dse.numerics import (
    DelayedScale,
    QuantizerState,
    calibrated_state,
    load_states,
    quantize,
    save_states,
    states_digest,
)
from hwmodels.formats.catalog import quantizer

NAMES = ["int8:static", "uint8_channel:static", "nvfp4:static", "int4_g32:mse:static"]


@pytest.fixture
def x():
    return torch.randn(6, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def states(x):
    found = {f"node/{n}": calibrated_state(x, quantizer(n), axes=(1,)) for n in NAMES}
    return found | {"learned|1": QuantizerState(values=x), "empty": QuantizerState()}


def test_reloaded_states_quantize_to_the_same_bits(states, x, tmp_path):
    digest = save_states(states, tmp_path / "states.safetensors")
    loaded = load_states(tmp_path / "states.safetensors")
    assert loaded.keys() == states.keys()
    assert states_digest(loaded) == digest == states_digest(states)
    for name in NAMES:
        mine = quantize(x, quantizer(name), axes=(1,), state=states[f"node/{name}"])
        assert torch.equal(
            mine, quantize(x, quantizer(name), axes=(1,), state=loaded[f"node/{name}"])
        )
    assert torch.equal(quantize(x * 2, quantizer("int8"), axes=(1,), state=loaded["learned|1"]), x)


def test_the_digest_changes_with_any_number(states):
    changed = dict(states)
    changed["learned|1"] = QuantizerState(values=states["learned|1"].values + 1e-7)
    assert states_digest(changed) != states_digest(states)


def test_a_torn_or_missing_file_is_refused(states, tmp_path):
    path = tmp_path / "states.safetensors"
    with pytest.raises(DseError, match="no readable state file"):
        load_states(path)
    save_states(states, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DseError, match="does not match its digest"):
        load_states(path)
    path.write_bytes(content[:20])
    with pytest.raises(DseError, match="no readable state file"):
        load_states(path)


def test_several_batches_calibrate_to_their_common_range(x):
    batches = [x, x * 3, x * 0.1]
    state = calibrated_state(batches, quantizer("int8:static"), axes=(1,))
    assert state.scales is not None
    assert state.scales.item() == (x * 3).abs().max().item() / torch.tensor(127.0)


def test_delayed_scales_come_from_the_steps_before(x):
    delayed = DelayedScale(quantizer("e4m3_tensor:delayed2"))
    states = [delayed.state(x * factor) for factor in (1, 8, 1, 1, 1)]
    seen = [state.scales.item() for state in states if state.scales is not None]
    base = x.abs().max().item() / 448
    assert seen == pytest.approx([base, base, 8 * base, 8 * base, base])
