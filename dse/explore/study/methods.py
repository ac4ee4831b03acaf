"""The search methods: who proposes assignments once all that was planned is measured."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler

from dse.errors import SpaceError, nearest
from dse.explore.study.front_sampler import FrontSampler
from dse.explore.study.optuna_samplers import OptunaMethod, sampler_names
from dse.explore.study.proposer import Proposer, SearchMethod, SearchTask
from dse.plugins import named_object
from hwmodels.errors import PluginError
from hwmodels.plugins import plugin, plugin_names

GROUP = "dse.methods"
"""The entry point group in which other packages register a `SearchMethod`."""


def front(task: SearchTask) -> Proposer:
    """Our own sampler: the point that should enlarge the front most."""
    sampler = FrontSampler(task)
    return Proposer(sampler=sampler, before_ask=sampler.queue_next)


METHODS: Mapping[str, SearchMethod] = {
    "front": cast("SearchMethod", front),
    "nsga2": OptunaMethod(optuna.samplers.NSGAIISampler),
    "nsga3": OptunaMethod(optuna.samplers.NSGAIIISampler),
    "tpe": OptunaMethod(optuna.samplers.TPESampler, {"multivariate": True}),
    "gp": OptunaMethod(optuna.samplers.GPSampler),
    "random": OptunaMethod(optuna.samplers.RandomSampler),
}
"""The methods by the name that a space uses."""


def method_names() -> list[str]:
    """Every name that a space may use: ours, other packages', Optuna's classes."""
    return [*METHODS, *plugin_names(GROUP), *sampler_names()]


def check_name(name: str, *, origin: str) -> None:
    """A method of that name must be known; code that a space names as `module:Class` is not run.

    Raises:
        SpaceError: it is not; names the nearest.
    """
    known = method_names()
    if ":" not in name and name not in known:
        raise SpaceError(
            f"{origin}: search.method: unknown method {name!r}{nearest(name, known)} "
            f"(known: {', '.join(known)}, or module:Class)"
        )


def search_method(name: str, *, origin: str, folder: Path) -> SearchMethod:
    """The method of a name.

    Args:
        name: a key of `METHODS`, of another package's entry point, a class of `optuna.samplers`,
            or `module:Class` of a sampler class or a `SearchMethod`.
        origin: what errors call the space.
        folder: where `module.py` may be, besides the installed modules.

    Raises:
        SpaceError: unknown, or its code cannot be had.
    """
    check_name(name, origin=origin)
    if name in METHODS:
        return METHODS[name]
    try:
        if ":" in name:
            found = named_object(name, folder)
        elif name in plugin_names(GROUP):
            found = plugin(GROUP, name)
        else:
            found = getattr(optuna.samplers, name)
    except PluginError as error:
        raise SpaceError(f"{origin}: search.method: {error}") from error
    if inspect.isclass(found) and issubclass(found, BaseSampler):
        return OptunaMethod(found)
    if not callable(found):
        raise SpaceError(
            f"{origin}: search.method: {name}: expected a class of Optuna's samplers or a "
            f"function of a SearchTask, got {type(found).__name__}"
        )
    return cast("SearchMethod", found)


def proposer_of(
    method: SearchMethod, task: SearchTask, arguments: Mapping[str, Any], *, origin: str
) -> Proposer:
    """The proposer of a method with the arguments of a space.

    Raises:
        SpaceError: arguments that the method does not take, or it gives no proposer.
    """
    try:
        found = method(task, **arguments)
    except TypeError as error:
        raise SpaceError(f"{origin}: search.arguments: {error}") from error
    except SpaceError as error:
        raise SpaceError(f"{origin}: {error}") from error
    if not isinstance(found, Proposer):
        raise SpaceError(
            f"{origin}: search.method: gave a {type(found).__name__}, expected a Proposer"
        )
    return found


def sampler_name(sampler: BaseSampler) -> str:
    """The name under which the class of a sampler can be had again."""
    kind = type(sampler)
    if getattr(optuna.samplers, kind.__name__, None) is kind:
        return str(kind.__name__)
    return f"{kind.__module__}:{kind.__qualname__}"
