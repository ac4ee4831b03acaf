"""Recipes for runtimes: what a target cannot express is refused, never dropped."""

from dse.export.qdq import export_qdq
from dse.export.trial import TARGETS, Target, export_trial

__all__ = ["TARGETS", "Target", "export_qdq", "export_trial"]
