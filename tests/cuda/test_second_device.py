"""The second device fails where CUDA would, and computes what the CPU computes elsewhere."""

from __future__ import annotations

import pytest
import torch

from tests.cuda.second_device import NAME, Labelled, second_device


@pytest.fixture(autouse=True)
def device():
    with second_device() as name:
        yield name


def test_tensors_are_where_they_were_made_or_moved(device):
    x = torch.ones(3)
    for made in (x.to(device), torch.zeros(2, device=device), torch.tensor([1.0], device=device)):
        assert isinstance(made, Labelled)
        assert made.device.type == NAME
        assert torch.empty_like(made).device.type == NAME
        assert (made * 2 + made[:1]).device.type == NAME
        assert made.cpu().device.type == "cpu"


def test_mixtures_are_refused(device):
    here, there = torch.ones(3, 3), torch.ones(3, 3, device=device)
    for mix in (
        lambda: here + there, lambda: there @ here, lambda: torch.cat([here, there]),
        lambda: torch.where(there > 0, there, here), lambda: there.add_(here),
        lambda: torch.maximum(there, here), lambda: torch.nn.functional.linear(there, here),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device"):
            mix()


def test_what_cuda_takes_from_the_host_is_taken(device):
    x = torch.arange(6.0).to(device)
    assert (x * torch.tensor(2.0)).cpu().tolist() == [0, 2, 4, 6, 8, 10]
    assert x[torch.tensor([1, 2])].cpu().tolist() == [1, 2]
    assert x.copy_(torch.ones(6)).cpu().tolist() == [1] * 6
    assert x.sum().item() == 6


def test_no_numpy_array_shares_its_memory(device):
    with pytest.raises(TypeError, match="cpu"):
        torch.ones(3, device=device).numpy()


def test_changes_in_place_are_seen_through_views(device):
    x = torch.zeros(4, device=device)
    x[1:3].add_(1)
    x.mul_(2)
    assert x.cpu().tolist() == [0, 2, 2, 0]
    assert x[1:].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_gradients_flow(device):
    weight = torch.eye(3)
    on_host = weight.clone().requires_grad_()
    on_device = weight.to(device).requires_grad_()
    (on_host @ on_host).square().sum().backward()
    (on_device @ on_device).square().sum().backward()
    assert isinstance(on_device.grad, Labelled)
    assert on_host.grad is not None
    assert torch.equal(on_device.grad.cpu(), on_host.grad)
