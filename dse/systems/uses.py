"""The parts of the product that a system names, each of them loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from dse.errors import DseError, StudyError
from dse.systems.schema import Uses
from dse.training.load import load_method
from hwmodels.errors import HardwareError
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import quantizer, scheme
from hwmodels.runtimes.platform import load_platform


def loaded_uses(uses: Uses, origin: str) -> Iterator[tuple[str, str]]:
    """Kind and name of everything that is named, once it was loaded.

    Raises:
        StudyError: something that does not exist; `origin` begins the message.
    """
    for kind, names, load in _kinds(uses):
        for name in names:
            try:
                load(name)
            except (DseError, HardwareError) as error:
                raise StudyError(f"{origin}: uses.{kind}: {error}") from None
            yield kind, name


def _kinds(uses: Uses) -> tuple[tuple[str, tuple[str, ...], Callable[[str], object]], ...]:
    return (
        ("methods", uses.methods, load_method),
        ("formats", uses.formats, quantizer),
        ("schemes", uses.schemes, scheme),
        ("accumulators", uses.accumulators, accumulator),
        ("devices", uses.devices, load_platform),
        ("functions", uses.functions, _function),
    )


def _function(text: str) -> object:
    module, _, name = text.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise StudyError(f"{text}: expected module:name of the product: {error}") from None
