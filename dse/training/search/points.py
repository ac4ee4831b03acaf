"""Points of a space of methods: a choice a variable, and the method that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from dse.errors import DseError, SpaceError
from dse.training.check import problems
from dse.training.method import Method
from dse.training.search.changes import applied
from dse.training.search.described import Described, described, differences
from dse.training.search.schema import TrainingSpace
from hwmodels.errors import HardwareError

Choices = Mapping[str, str]
"""Option of every variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A method of the space."""

    choices: Choices
    method: Method
    digest: str


@dataclass(frozen=True, kw_only=True)
class MethodProblem:
    """The variables of a space, over the method that they start from."""

    space: TrainingSpace
    start_method: Method
    named_methods: Mapping[str, Method]
    origin: str
    """The space's name in errors."""

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the options of every variable."""
        return {name: tuple(one.options) for name, one in self.space.variables.items()}

    @cached_property
    def start(self) -> Point:
        """The point that axes are varied from.

        Raises:
            SpaceError: it is no point of the space.
        """
        return self.point(self.projected(self.start_method, f"start: {self.space.start}"))

    @cached_property
    def named(self) -> Mapping[str, Point]:
        """The named methods as points.

        Raises:
            SpaceError: one is no point of the space.
        """
        return {
            name: self.point(self.projected(method, f"named: {name}"))
            for name, method in self.named_methods.items()
        }

    def point(self, choices: Choices) -> Point:
        """The point of a choice a variable; a shipped method is that method itself."""
        key = tuple(choices[name] for name in self.space.variables)
        if key not in self._points:
            made = self._made(choices)
            digest = made.digest
            known = self._known.get(digest)
            method = known or made.method(source=f"a search of {self.origin}")
            self._points[key] = Point(choices=dict(choices), method=method, digest=digest)
        return self._points[key]

    def refusal(self, point: Point) -> str:
        """The first reason why a point is no method; empty where it is one."""
        if point.digest not in self._refused:
            self._refused[point.digest] = next(self._refusals(point), "")
        return self._refused[point.digest]

    def projected(self, method: Method, what: str) -> Choices:
        """The choices that make a method.

        An option is the method's where applying it changes nothing.

        Args:
            method: Any method.
            what: Its name in the error.

        Raises:
            SpaceError: the method is no point of the space; says where it differs.
        """
        wanted = described(method)
        digest = wanted.digest
        choices, missing = {}, []
        for name, variable in self.space.variables.items():
            fitting = (
                key
                for key, option in variable.options.items()
                if applied(wanted, variable, option).digest == digest
            )
            found = next(fitting, None)
            if found is None:
                missing.append(f"no option of variables.{name} is the method's")
            choices[name] = found or next(iter(variable.options))
        lines = [*missing, *differences(wanted, self._made(choices))]
        if not lines:
            return choices
        raise SpaceError(
            f"{self.origin}: {what}: is no point of the space, the method has "
            f"{'; '.join(lines)}: add an option, or leave it out"
        )

    def _made(self, choices: Choices) -> Described:
        made = described(self.start_method)
        for name, variable in self.space.variables.items():
            made = applied(made, variable, variable.options[choices[name]])
        return made

    @cached_property
    def _points(self) -> dict[tuple[str, ...], Point]:
        """Points that were asked for, by their choices."""
        return {}

    @cached_property
    def _refused(self) -> dict[str, str]:
        """Reasons by digest."""
        return {}

    @cached_property
    def _known(self) -> Mapping[str, Method]:
        given = [self.start_method, *self.named_methods.values()]
        return {described(method).digest: method for method in given}

    def _refusals(self, point: Point) -> Iterator[str]:
        try:
            yield from problems(point.method)
        except (DseError, HardwareError) as error:
            yield str(error)
