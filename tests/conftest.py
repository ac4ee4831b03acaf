"""What holds for all tests: markers that need something, skips, reproducible property tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # A process a core: threads of two processes would wait for each other at every barrier, and
    # spin. Before torch is imported, here and in the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FORBID_SKIPS = "DSE_FORBID_SKIPS"
"""Set by `.ci/run`, which installs what marked tests need. No script can install a GPU."""

# Imports stand where they are needed: `tests/cuda` runs on machines that have neither Hypothesis
# nor the clients of databases.
if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=False)
    settings.load_profile("repeatable")


def _has_chromium() -> bool:
    return shutil.which("chromium") is not None


def _has_postgresql() -> bool:
    from tests.explore import postgresql  # noqa: PLC0415

    return postgresql.program("initdb") is not None


def _has_redis() -> bool:
    from tests.explore import redis_server  # noqa: PLC0415

    return redis_server.program() is not None


def _has_cuda() -> bool:
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "browser": (_has_chromium, "needs chromium: apt-get install chromium"),
    "postgresql": (_has_postgresql, "needs apt-get install postgresql"),
    "redis": (_has_redis, "needs apt-get install redis-server"),
    "cuda": (_has_cuda, "needs a CUDA device"),
}
"""By marker: whether what a test needs is there, and what to say if not."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        for marker, (is_there, reason) in NEEDS.items():
            if item.get_closest_marker(marker) and not is_there():
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("cuda")
    if report.skipped and os.environ.get(FORBID_SKIPS) and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped, which {FORBID_SKIPS} forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and os.environ.get(FORBID_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {FORBID_SKIPS} forbids: {report.longrepr}"
    return report


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
