"""A PostgreSQL server of our own for tests: on loopback, in a temporary folder, unprivileged."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.explore.server import free_port

LIMIT_S = 300
"""For what takes a second where nothing else runs."""
USER = "postgres"
"""Whom the Debian package makes; the server refuses to run as root."""


def program(name: str) -> str | None:
    """A server program: on the path, or where Debian keeps it."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, homes)]))


class Server:
    """A server that can be stopped and started again.

    Args:
        folder: for its data; parents must be open to others where the tests run as root.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._data = folder / "data"
        folder.mkdir()
        self._as: dict[str, Any] = {"user": USER, "group": USER} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(folder, USER)
        self.user = USER if self._as else pwd.getpwuid(os.getuid()).pw_name
        self._do(
            "initdb", "--auth=trust", "--no-sync", "--no-instructions", f"--username={self.user}"
        )

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._data} -F"
        self._do(
            "pg_ctl",
            "-w",
            "-t",
            str(LIMIT_S),
            "-o",
            options,
            "-l",
            str(self._data / "log"),
            "start",
        )

    def stop(self) -> None:
        """End it without asking anybody."""
        self._do("pg_ctl", "-m", "immediate", "stop")

    def _do(self, name: str, *arguments: str) -> None:
        command = [str(program(name)), "-D", str(self._data), *arguments]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=LIMIT_S, **self._as
        )
