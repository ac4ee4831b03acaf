"""The front to people: tables, figures, one self-contained HTML page. Reads run folders only."""

from __future__ import annotations

from dse.report.compare import compare
from dse.report.console import print_front
from dse.report.html import write_report
from dse.report.records import front_rows

__all__ = ["compare", "front_rows", "print_front", "write_report"]
