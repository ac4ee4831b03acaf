"""Files of spaces of methods: YAML to a checked problem, all errors at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from dse.errors import DseError, SpaceError, nearest
from dse.space.load import question
from dse.training.load import load_method, method_name
from dse.training.method import Method
from dse.training.roles import TRAINED, passes_of
from dse.training.search.changes import problem_of
from dse.training.search.points import MethodProblem
from dse.training.search.schema import TrainingSpace
from dse.training.workloads.catalogue import workload
from hwmodels import validation
from hwmodels.yaml_file import SUFFIXES, parse_yaml, read_text

_SPACE = TypeAdapter(TrainingSpace)


def load_training_space(path: Path) -> TrainingSpace:
    """The space of a YAML file.

    Raises:
        SpaceError: fields that do not fit; all of them at once.
    """
    text = read_text(path, SpaceError, what="space file")
    content = parse_yaml(text, str(path), SpaceError)
    if isinstance(content, dict):
        content = {"question": question(text), **content}
    return training_space(content, origin=str(path))


def training_space(content: object, *, origin: str) -> TrainingSpace:
    """The space that a mapping says, as a file would; `origin` names it in errors.

    Raises:
        SpaceError: fields that do not fit, roles, passes and formats that nobody knows; all of
            them at once.
    """
    space = validation.validated(_SPACE, content, origin, SpaceError)
    if found := [f"{origin}: {line}" for line in _problems(space)]:
        raise SpaceError("\n".join(found))
    return space


def problem_of_space(space: TrainingSpace, *, origin: str, folder: Path) -> MethodProblem:
    """The problem of a space, whose named methods are points of it.

    Args:
        space: The space.
        origin: Its name in errors.
        folder: The folder that paths of method files are relative to.

    Raises:
        SpaceError: a named method that is no point of the space.
        MethodError: a method that nobody knows.
    """
    problem = MethodProblem(
        space=space,
        start_method=_method(space.start, folder),
        named_methods={method_name(one): _method(one, folder) for one in space.named},
        origin=origin,
    )
    for point in (problem.start, *problem.named.values()):
        if refusal := problem.refusal(point):
            raise SpaceError(f"{origin}: {refusal}")
    return problem


def _method(name: str, folder: Path) -> Method:
    return load_method(folder / name if Path(name).suffix in SUFFIXES else name)


def _problems(space: TrainingSpace) -> Iterator[str]:
    for said in filter(None, (space.workload, space.quick.workload)):
        try:
            workload(said.name)
        except DseError as error:
            yield f"workload.name: {error}"
    for name, variable in space.variables.items():
        where = f"variables.{name}"
        for key in variable.at:
            yield from (f"{where}.at: {words}" for words in _of_key(key))
        for label, option in variable.options.items():
            place = f"{where}.options.{label}"
            keyed: Mapping[str, object] = {"": option, **option.roles}
            for key in option.roles:
                yield from (f"{place}.roles.{key}: {words}" for words in _of_key(key))
            yield from (
                f"{place}{f'.roles.{key}' if key else ''}: {words}"
                for key, change in keyed.items()
                if (words := problem_of(change))  # type: ignore[arg-type]
            )
    for label in space.quick.fixed:
        if label not in space.variables:
            yield f"quick.fixed: no variable {label!r}{nearest(label, space.variables)}"


def _of_key(key: str) -> Iterator[str]:
    role, _, pass_ = key.partition("@")
    if role not in TRAINED:
        yield f"no such role: {role!r}{nearest(role, TRAINED)} (known: {', '.join(TRAINED)})"
    elif pass_ and pass_ not in passes_of(role):
        yield (
            f"role {role} has no part in pass {pass_!r}; expected "
            f"{', '.join(f'{role}@{one}' for one in passes_of(role))}"
        )
