"""Every library that a method can be written for, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dse.errors import MethodError
from dse.training.export import torch_module, torchao, transformer_engine
from dse.training.method import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A library's file of settings."""

    title: str
    can_express: Callable[[Method], tuple[str, ...]]
    """One line for each part of a method that the file cannot say."""
    write: Callable[[Method, str], str]
    """The text of the file, of a method and its name."""
    remark: str = ""
    """Anything that its reader has to know."""


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "te": Exporter(
            title="Transformer Engine",
            can_express=transformer_engine.can_express,
            write=transformer_engine.write,
            remark="written against the source of Transformer Engine "
            f"{transformer_engine.VERSION}; not run: it needs a GPU",
        ),
        "torchao": Exporter(title="torchao", can_express=torchao.can_express, write=torchao.write),
        "torch": Exporter(
            title="torch", can_express=torch_module.can_express, write=torch_module.write
        ),
    }
)


def exported(method: Method, name: str, library: str) -> str:
    """The text of a Python file that says the method in a library's terms.

    Args:
        method: What to write.
        name: Of the method, for the file's first line.
        library: A key of `EXPORTERS`.

    Raises:
        MethodError: parts that the library cannot express; the message lists all of them.
    """
    exporter = EXPORTERS[library]
    if found := exporter.can_express(method):
        lines = "\n".join(f"  {one}" for one in found)
        raise MethodError(f"{name}: {exporter.title} cannot express all of it:\n{lines}")
    return exporter.write(method, name)
