"""The front to people: tables, figures, one self-contained HTML page."""

from __future__ import annotations

from dse.report.html import write_report

__all__ = ["write_report"]
