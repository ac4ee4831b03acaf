"""The target `litert`: a .tflite file, written without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from dse.export.base import Check, Recipe, Refusal
from dse.export.litert.formats import refused
from dse.export.litert.network import Network
from dse.export.litert.operators import HANDLERS
from dse.export.litert.verify import checks
from dse.export.onnx_qdq.plan import plan_of


class LiteRt:
    """Convolutional networks: integers where the emulator rounds, float32 elsewhere.

    A product runs in integers where its operands and all that is read of its result are rounded;
    its bias is rounded to the scale of the 32-bit sum. Images have their channels last.
    """

    summary = "a .tflite file of a convolutional network, for LiteRT and compilers of NPUs (Vela)"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without a kernel, and operators without a place.

        Raises:
            ExportError: LiteRT is not installed.
        """
        found = tuple(refused(recipe))
        return found or tuple(recipe.once(_network).refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be written there.
        """
        out.write_bytes(recipe.once(_network).packed())

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The weights, every product code for code, and outputs, by LiteRT.

        Raises:
            ExportError: it computes something else than the emulator.
        """
        return checks(recipe, recipe.once(_network), out)


def _network(recipe: Recipe) -> Network:
    network = Network(recipe, plan_of(recipe).placements)
    network.lower(HANDLERS)
    return network
