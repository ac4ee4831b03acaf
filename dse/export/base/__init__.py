"""The seam of exporters: what a target gets, what it must promise, and what it says.

A target is one file (or folder) with a class that is an `Exporter`; `dse.export.exporters` names
ours, and the entry point group `dse.exporters` those of other packages.
"""

from dse.export.base.exporter import Check, Exporter, Launchable
from dse.export.base.recipe import Recipe
from dse.export.base.refusal import Inexpressible, Refusal, refusal

__all__ = ["Check", "Exporter", "Inexpressible", "Launchable", "Recipe", "Refusal", "refusal"]
