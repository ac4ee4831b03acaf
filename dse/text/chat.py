"""Chat templates, rendered as `transformers` renders them: jinja2, sandboxed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dse.errors import DataError

Message = Mapping[str, Any]
"""A turn of a conversation: `role`, `content`."""


def render(
    template: str,
    messages: Sequence[Message],
    *,
    tokens: Mapping[str, str],
    where: str,
    prompt: bool = False,
) -> str:
    """The text of a conversation.

    Args:
        template: a jinja template.
        messages: the turns.
        tokens: special tokens by name (`bos_token`, ...), which templates write.
        where: what errors begin with.
        prompt: whether the text ends with the beginning of an answer.

    Raises:
        DataError: The template is invalid, does something that the sandbox forbids, or refuses
            these messages.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(template).render(
            messages=list(messages), add_generation_prompt=prompt, **tokens
        )
    except TemplateSyntaxError as error:
        raise DataError(f"{where}: not a valid template: {error}") from error
    except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise DataError(f"{where}: cannot render a conversation: {error}") from error


class Generation(Extension):
    """The tag `generation`, which marks answers for training: its content as it is."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The statements between `generation` and `endgeneration`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    *,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now(tz=UTC).astimezone().strftime(form)
