"""Recipes for runtimes: what a target cannot express is refused, never dropped."""

from dse.export.qdq import export_qdq

__all__ = ["export_qdq"]
