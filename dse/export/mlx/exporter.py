"""The target `mlx`: a Hugging Face folder whose linear layers are packed as MLX packs them."""

from __future__ import annotations

import shlex
from pathlib import Path

from dse.export.base import Check, Recipe, Refusal
from dse.export.hugging_face.folder import write_folder
from dse.export.hugging_face.layers import NO_FOLDER
from dse.export.mlx.plan import Plan, plan_of
from dse.export.mlx.verify import checks


class Mlx:
    """Packed weights with settings for every path in `config.json`.

    Modes affine (codes, scales and biases), mxfp4, mxfp8 and nvfp4 (without a tensor scale).
    """

    summary = "a Hugging Face folder with packed weights, for MLX on Apple's chips (mlx-lm)"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without a mode, and what is no weight of a linear layer."""
        plan = recipe.once(plan_of)
        return (NO_FOLDER,) if plan is None else tuple(plan.refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the folder.

        Raises:
            OSError: it cannot be written there.
        """
        plan, source = _plan(recipe), recipe.checkpoint
        assert source is not None, "can_express has asked for one"
        write_folder(source, out, plan.contents(source))

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The weights as MLX unpacks them, and outputs of mlx-lm on samples.

        Raises:
            ExportError: one of them computes something else than the emulator.
        """
        return checks(recipe, _plan(recipe), out)

    def launch(self, recipe: Recipe, out: Path) -> str:
        """`mlx_lm.server`."""
        return f"mlx_lm.server --model {shlex.quote(str(out))}"


def _plan(recipe: Recipe) -> Plan:
    plan = recipe.once(plan_of)
    assert plan is not None, "can_express has asked for a folder"
    return plan
