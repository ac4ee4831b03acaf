"""What holds for all tests: markers that need something, skips, reproducible property tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Sequence

import pytest
from hypothesis import settings

from tests.explore import postgresql, redis_server

FORBID_SKIPS = "DSE_FORBID_SKIPS"
"""Set by `.ci/run`, which installs what marked tests need. No script can install a GPU."""

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") and not shutil.which("chromium"):
            item.add_marker(pytest.mark.skip(reason="needs chromium: apt-get install chromium"))
        if item.get_closest_marker("postgresql") and not postgresql.program("initdb"):
            item.add_marker(pytest.mark.skip(reason="needs apt-get install postgresql"))
        if item.get_closest_marker("redis") and not redis_server.program():
            item.add_marker(pytest.mark.skip(reason="needs apt-get install redis-server"))
        if item.get_closest_marker("cuda") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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


def _has_cuda() -> bool:
    import torch  # noqa: PLC0415 (only where a test asks for it)

    return torch.cuda.is_available()
