"""A Redis server of our own for tests: on loopback, in a temporary folder, everything on disk."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import redis

from tests.explore.server import free_port

LIMIT_S = 300
"""For a start on a loaded machine."""


def program() -> str | None:
    """The server program, if it is installed."""
    return shutil.which("redis-server")


class Server:
    """A server that can be stopped and started again, and loses nothing.

    Args:
        folder: for its data.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:secret@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {
            "bind": "127.0.0.1", "port": self.port, "dir": self._folder, "requirepass": "secret",
            "save": "", "appendonly": "yes", "appendfsync": "always", "daemonize": "no",
        }  # fmt: skip
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([str(program()), *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LIMIT_S
        with redis.Redis.from_url(self.url) as client:
            while not _answers(client):
                assert time.monotonic() < deadline, "the server does not answer"
                assert self._process.poll() is None, "the server has ended"
                time.sleep(0.02)

    def stop(self) -> None:
        """End it without asking anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
