"""Recipes for runtimes: what a target cannot express is refused, never dropped."""

from dse.export.base import Check, Exporter, Recipe, Refusal
from dse.export.deliver import deliver
from dse.export.exporters import EXPORTERS, exporter, exporter_names
from dse.export.trial import Exported, export_trial, recipe_of

__all__ = [
    "EXPORTERS", "Check", "Exported", "Exporter", "Recipe", "Refusal", "deliver", "export_trial",
    "exporter", "exporter_names", "recipe_of",
]  # fmt: skip
