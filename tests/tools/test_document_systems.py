from __future__ import annotations

import json

from dse.systems.load import load_system, system_names
from tools.document_systems import DOCUMENT, RESULTS, document


def test_the_page_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_what_was_measured_is_of_the_claims_as_they_stand() -> None:
    for name in system_names():
        found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        told = {one["says"] for one in found["claims"]}
        assert told == {one.says for one in load_system(name).claims}, name
