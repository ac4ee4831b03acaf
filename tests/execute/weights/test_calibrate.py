"""Statistics over calibration batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dse.errors import RunError
from dse.execute.weights.calibrate import (
    FILE,
    SAMPLE,
    Observer,
    load_calibration,
    observe,
    save_calibration,
)
from dse.graph.patterns.analysis import Analysis
from tests.execute.conftest import Exported


def seen(batches: list[Tensor], axes: tuple[int, ...]) -> Observer:
    observer = Observer(axes)
    for batch in batches:
        assert observer(batch) is batch
    return observer


def test_extrema_are_those_of_all_batches() -> None:
    batches = list(torch.randn(5, 3, 40, 8, generator=torch.Generator().manual_seed(0)))
    found = seen(batches, (2,)).statistics()
    together = torch.stack(batches)
    assert (found.minimum, found.maximum) == (together.min().item(), together.max().item())
    assert found.absmax == together.abs().max()
    assert torch.equal(found.channel_absmax, together.abs().amax((0, 1, 2)))


def test_sample_keeps_the_quantiles_and_every_channel() -> None:
    """Channel c holds values around c; a power-of-two stride would see only some channels."""
    scale = torch.arange(1.0, 65.0)
    batches = [torch.randn(300, 64, generator=torch.Generator().manual_seed(i)) * scale
               for i in range(20)]  # fmt: skip
    found = seen(batches, (1,)).statistics()
    everything = torch.cat(batches).flatten().numpy()
    assert SAMPLE / 3 < found.sample.numel() <= SAMPLE
    for quantile in (0.1, 0.5, 0.9, 0.999):
        expected = np.quantile(np.abs(everything), quantile)
        result = np.quantile(found.sample.abs().numpy(), quantile)
        assert result == pytest.approx(expected, rel=0.08)


def test_values_that_are_not_finite_are_left_out() -> None:
    batch = torch.tensor([1.0, float("nan"), float("inf"), -2.0])
    found = seen([batch], (0,)).statistics()
    assert (found.minimum, found.maximum) == (-2.0, 1.0)


def test_an_observer_that_saw_nothing_has_zeros() -> None:
    found = seen([torch.zeros(0, 4)], (1,)).statistics()
    assert (found.minimum, found.maximum, found.absmax) == (0.0, 0.0, 0.0)


@pytest.fixture
def llama(exported: Callable[[str], Exported]) -> Exported:
    return exported("llama-dynamo18")


def batches(model: Exported) -> list[dict[str, Tensor]]:
    (name,) = model.graph.inputs
    generator = torch.Generator().manual_seed(2)
    return [{name: torch.randint(0, 128, (2, 16), generator=generator)} for _ in range(3)]


def test_observed_activations_are_those_of_the_module(llama: Exported) -> None:
    site = next(
        s
        for s in Analysis(llama.graph).sites
        if s.node.endswith("linear") and s.role == "activation"
    )
    expected: list[Tensor] = []
    layer = llama.module.get_submodule("model.layers.0.self_attn.q_proj")
    handle = layer.register_forward_hook(lambda _, inputs, __: expected.append(inputs[0]))
    with torch.no_grad():
        for feeds in batches(llama):
            llama.module(*feeds.values())
    handle.remove()
    found = observe(llama.program, batches(llama), [site]).statistics[site.key]
    assert found.absmax == pytest.approx(float(torch.stack(expected).abs().max()), rel=1e-5)
    channels = torch.stack(expected).abs().amax((0, 1, 2))
    torch.testing.assert_close(found.channel_absmax, channels, rtol=1e-4, atol=1e-5)


def test_sites_of_one_value_share_statistics_and_constants_are_seen(llama: Exported) -> None:
    sites = Analysis(llama.graph).sites
    calibration = observe(llama.program, batches(llama), sites)
    by_value: dict[object, set[int]] = {}
    for site in sites:
        found = calibration.statistics[site.key]
        by_value.setdefault((site.value, site.contraction_axes), set()).add(id(found))
        assert found.absmax > 0
    assert all(len(ids) == 1 for ids in by_value.values())
    weight = next(site for site in sites if site.role == "weight")
    constant = llama.program.constant(weight.value)
    assert constant is not None
    assert calibration.statistics[weight.key].absmax == constant.abs().max()


def test_calibration_survives_its_file(llama: Exported, tmp_path: Path) -> None:
    sites = Analysis(llama.graph).sites[:6]
    calibration = observe(llama.program, batches(llama), sites)
    save_calibration(calibration, tmp_path / "state")
    again = load_calibration(tmp_path / "state")
    assert again.digest == calibration.digest
    key = sites[0].key
    found, expected = again.statistics[key], calibration.statistics[key]
    assert found.count == expected.count
    for part in ("channel_absmax", "sample", "lowest", "highest"):
        assert torch.equal(getattr(found, part), getattr(expected, part))


def test_another_calibration_has_another_digest(llama: Exported) -> None:
    sites = Analysis(llama.graph).sites[:3]
    one = observe(llama.program, batches(llama), sites)
    other = observe(llama.program, batches(llama)[:1], sites)
    assert one.digest != other.digest
    key = sites[0].key
    same = replace(one, statistics={**one.statistics, key: one.statistics[key]})
    assert same.digest == one.digest


def test_missing_calibration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        load_calibration(tmp_path)


def test_a_calibration_without_tails_is_an_error(tmp_path: Path) -> None:
    """As versions before wrote it."""
    tensors = {"a/in0:bounds": torch.zeros(2), "a/in0:sample": torch.zeros(3)}
    save_file(tensors, tmp_path / FILE, metadata={"digest": "0"})
    with pytest.raises(RunError, match=r"did not keep the largest .*search again"):
        load_calibration(tmp_path)
