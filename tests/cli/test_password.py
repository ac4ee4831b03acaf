"""`***` of a URL that a message shows stands for the password that is asked for again."""

from __future__ import annotations

import sys
from io import StringIO

import pytest
import typer

from dse.cli import password

SHOWN = "postgresql://me:***@host/database"


def test_the_environment_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(password.VARIABLE, "p@ss/word")
    assert password.with_password(SHOWN) == "postgresql://me:p%40ss%2Fword@host/database"


def test_whoever_sits_there_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(password.VARIABLE, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret")
    assert password.with_password(SHOWN) == "postgresql://me:secret@host/database"


def test_nobody_else_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(password.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stdin", StringIO())
    with pytest.raises(typer.BadParameter, match=r"\*\*\* stands for the password.*DSE_STORAGE"):
        password.with_password(SHOWN)


@pytest.mark.parametrize("url", [None, "study.log", "postgresql://me:secret@host/database"])
def test_other_urls_stay_as_they_are(url: str | None) -> None:
    assert password.with_password(url) == url
