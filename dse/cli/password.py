"""The password that a pasted URL of a storage hides."""

from __future__ import annotations

import getpass
import os
import sys
from urllib.parse import quote

import typer

VARIABLE = "DSE_STORAGE_PASSWORD"
HIDDEN = ":***@"


def with_password(url: str | None) -> str | None:
    """The URL with its password where `***` stands, as messages and manifests show it.

    Raises:
        BadParameter: the environment has no password, and nobody is there to be asked.
    """
    if url is None or HIDDEN not in url:
        return url
    password = os.environ.get(VARIABLE)
    if password is None:
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                f"{url}: *** stands for the password; write it there or into {VARIABLE}"
            )
        password = getpass.getpass(f"password of {url}: ")
    return url.replace(HIDDEN, f":{quote(password, safe='')}@")
