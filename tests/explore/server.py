"""What servers that tests start have in common: a port, and an end."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar


class Stoppable(Protocol):
    """A server that can be stopped and started again."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


Server = TypeVar("Server", bound=Stoppable)


def free_port() -> int:
    """A port that nothing listens on, and that the system gives to nobody who asks for any.

    Those it gives away begin at 32768: another process would have it before the server starts, or
    while it is stopped.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """A server that runs until the end of the context."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
