"""Methods for tests."""

from __future__ import annotations

from dse.training.load import method_of
from dse.training.method import Method

EXACT_ATTENTION = {
    "match": {"kind": "attention", "optional": True},
    "roles": {"*": "fp32", "activation_gradient": "fp32"},
}
"""A rule under which attention rounds nothing."""


def method(**content: object) -> Method:
    """A method with a source."""
    return method_of({"source": "a test", **content}, origin="METHOD.yaml")


def exact() -> Method:
    """Nothing is rounded."""
    return method(roles={"*": "fp32"}, rules=[EXACT_ATTENTION])
