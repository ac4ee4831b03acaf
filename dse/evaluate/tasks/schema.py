"""A file of tasks: what `dse evaluate --tasks FILE` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from dse.errors import DataError
from hwmodels import validation
from hwmodels.yaml_file import read_yaml

Kind = Literal["perplexity", "multiple_choice", "generation", "retrieval", "function"]


class Section(BaseModel):
    """A part of the file: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TaskEntry(Section):
    """One task."""

    name: str = Field(min_length=1)
    kind: Kind
    data: str
    """A text file for `perplexity`; otherwise JSONL. `multiple_choice`: `prompt`, `choices` and
    `answer` (index or letter); `generation`: `prompt` or `messages`, and `answer` (or a list);
    `retrieval` also has `context`, the long text that the answer is in."""
    samples: int | None = Field(default=None, ge=1)
    """At most so many records; all of them by default."""
    length: int | None = Field(default=None, ge=2)
    """Tokens of a window of `perplexity`; by default the model's context, at most 2048."""
    max_tokens: int = Field(default=32, ge=1)
    """The most tokens that are generated."""
    stop: tuple[str, ...] = ("\n\n",)
    """Texts that end a generated answer, besides the end-of-text token."""
    match: Literal["exact", "contains"] | None = None
    """The comparison of answers; by default `exact`, of `retrieval` `contains`."""
    function: str | None = None
    """`module:function`, of kind `function`: (run, records, tokenizer) -> a number a record."""

    @model_validator(mode="after")
    def _has_function(self) -> TaskEntry:
        if (self.kind == "function") != (self.function is not None):
            raise ValueError("kind 'function' and field 'function' go together")
        return self


class TaskFile(Section):
    """The whole file."""

    tasks: tuple[TaskEntry, ...] = Field(min_length=1)


_FILE = TypeAdapter(TaskFile)


def load_tasks(path: Path) -> Sequence[TaskEntry]:
    """The tasks of a file, their data relative to it.

    Raises:
        DataError: No such file, not YAML, fields that do not fit, two tasks of one name.
    """
    content = read_yaml(path, DataError, what="file of tasks")
    entries = validation.validated(_FILE, content, str(path), DataError).tasks
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: several tasks are called {', '.join(twice)}")
    return [entry.model_copy(update={"data": str(path.parent / entry.data)}) for entry in entries]
