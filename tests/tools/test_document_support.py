from __future__ import annotations

from tools.document_support import DOCUMENT, document


def test_the_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()
