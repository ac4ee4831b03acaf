"""Checks of a folder by compressed-tensors and transformers, against the emulator."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dse.errors import ExportError
from dse.export.base import Check, Recipe
from dse.export.compressed_tensors.outputs import outputs
from dse.export.compressed_tensors.plan import FolderPlan
from dse.export.compressed_tensors.unpack import schemes_of, unpacked
from dse.export.hugging_face.folder import read_tensors
from dse.export.hugging_face.plan import emulated

PACKAGES = ("compressed_tensors", "transformers")
BF16_ULP = 2.0**-7
"""One unit in the last place of a bfloat16, as the largest share of the number."""


def checks(recipe: Recipe, plan: FolderPlan, out: Path) -> tuple[Check, ...]:
    """Schema, weights and outputs of a written folder.

    Raises:
        ExportError: the package refuses it, or computes something else than the emulator.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        named = ", ".join(missing).replace("_", "-")
        return (Check(checker="transformers", compared="nothing", note=f"needs {named}"),)
    return (_weights(recipe, plan, out), outputs(recipe, plan, out))


def _weights(recipe: Recipe, plan: FolderPlan, out: Path) -> Check:
    """Every packed weight as the package unpacks it, under the schema that it reads."""
    from compressed_tensors import __version__ as version  # noqa: PLC0415 (an extra)

    checker = f"compressed-tensors {version}"
    schemes, tensors = schemes_of(out, checker), read_tensors(out)
    worst = 0.0
    for module, wanted in emulated(recipe, plan.layers):
        found = unpacked(module, schemes[module], tensors)
        difference = (found - wanted).abs()
        if found.shape != wanted.shape or bool((difference > BF16_ULP * wanted.abs()).any()):
            raise ExportError(
                f"{checker} reads {module} with a difference of {float(difference.max()):.3g}, "
                "more than a bfloat16's last place"
            )
        worst = max(worst, float(difference.max()))
    return Check(
        checker=checker,
        compared=f"{len(plan.layers.quantized)} weights",
        difference=worst,
        note="it unpacks 4-bit floats to bfloat16" if worst else "",
    )
