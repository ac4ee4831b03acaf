"""A second device made of the CPU: finds what mixes devices on machines without an accelerator.

A tensor of the second device is a CPU tensor under a label. Whatever torch does with it runs on
the CPU; an operation that takes a labelled and an unlabelled tensor fails as it would on CUDA. So
a computation that passes here has every tensor where it belongs, and gives numbers to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"
"""A device type that torch knows by name and whose backend nobody loads. Autograd runs its
backward passes on the calling thread, as it does for the CPU."""

_aten = torch.ops.aten
_COPIES = {_aten._to_copy, _aten.to, _aten.copy_, _aten._copy_from}
"""What moves values from one device to another."""
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
"""CUDA takes their indices from the host."""


class Labelled(Tensor):
    """A tensor of the second device; it shares the memory of `values`."""

    values: Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: Tensor) -> Labelled:
        made: Labelled = Tensor._make_subclass(
            cls, values, False, dispatch_device=True, device_for_backend_keys=torch.device(NAME)
        )
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return torch.device(NAME)
        return _called(func, args, dict(kwargs or {}))

    def numpy(self, **_: object) -> Any:
        """Refuses, as CUDA tensors do."""
        raise TypeError("can't convert a tensor of the second device to numpy; use Tensor.cpu()")

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.values.tolist()

    def __array__(self, *_: object) -> Any:
        return self.numpy()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Labelled({self.values!r})"

    def __format__(self, spec: str) -> str:
        return format(self.values, spec)


class _Mode(TorchDispatchMode):
    """Labels what is made on the second device or moved there."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return torch.device(NAME)
        return _called(func, args, dict(kwargs or {}))


def _called(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The results of an operator, on the device where torch would leave them."""
    leaves = tree_leaves((args, kwargs))
    given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    labelled = [leaf for leaf in given if isinstance(leaf, Labelled)]
    if labelled and func.overloadpacket not in _COPIES:
        _refuse_mixtures(func, given[:1] if func.overloadpacket in _INDEXING else given)
    named = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    if named:
        is_second = named[0].type == NAME
    elif func is _aten.copy_.default:
        is_second = isinstance(args[0], Labelled)
    else:
        is_second = bool(labelled)
    made = func(*tree_map(_on_host, args), **tree_map(_on_host, kwargs))
    if not is_second:
        return made
    known = {id(leaf.values): leaf for leaf in labelled}
    return tree_map(lambda leaf: _marked(leaf, known), made)


def _refuse_mixtures(func: Any, given: Sequence[Tensor]) -> None:
    """RuntimeError for tensors of both devices; a single number may come from the host."""
    apart = [x for x in given if not isinstance(x, Labelled) and x.dim() > 0]
    if apart and len(apart) < len(given):
        shapes = ", ".join(f"{x.device.type}{list(x.shape)}" for x in given)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got {shapes}"
        )


def _on_host(value: object) -> object:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.values if isinstance(value, Labelled) else value


def _marked(value: object, known: Mapping[int, Labelled]) -> object:
    """Results carry the label; an operand that was changed in place is the operand again."""
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else Labelled(value)


class _Generator(torch.Generator):
    """Random numbers of the second device are the host's."""

    def __new__(cls, device: str | torch.device = "cpu") -> _Generator:
        is_second = torch.device(device).type == NAME
        return super().__new__(cls, device="cpu" if is_second else device)  # type: ignore[call-arg]


def _made_on_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` and its kin, which fill a device's memory below what a mode can see."""

    def made(data: object, *, device: Any = None, **others: Any) -> Tensor:
        found = make(data, **others)
        return found if device is None else found.to(device)

    return made


@contextmanager
def second_device() -> Iterator[str]:
    """The name of a device that exists within the context."""
    replaced: dict[str, Any] = {
        "Generator": _Generator,
        "tensor": _made_on_host(torch.tensor),
        "as_tensor": _made_on_host(torch.as_tensor),
    }
    with mock.patch.multiple("torch", **replaced), _Mode():
        yield NAME
