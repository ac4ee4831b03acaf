"""The exporters by name: ours, and those of installed packages."""

from __future__ import annotations

from dse.errors import ExportError, nearest
from dse.export.aimet.exporter import Aimet
from dse.export.base import Exporter, Recipe, Refusal
from dse.export.compressed_tensors.exporter import CompressedTensors
from dse.export.gguf.exporter import Gguf
from dse.export.litert.exporter import LiteRt
from dse.export.mlx.exporter import Mlx
from dse.export.modelopt.exporter import ModelOpt
from dse.export.neutral import NeutralRecipe
from dse.export.onnx_qdq.exporter import OnnxQdq
from dse.export.tensorrt.exporter import TensorRt
from dse.export.torchao.exporter import TorchAo
from dse.graph.ir.site import SUM
from hwmodels.plugins import plugin, plugin_names

GROUP = "dse.exporters"
"""Entry points of other packages: `mine = "package.module:EXPORTER"`."""

EXPORTERS: dict[str, Exporter] = {
    "aimet": Aimet(),
    "compressed-tensors": CompressedTensors(),
    "gguf": Gguf(),
    "litert": LiteRt(),
    "mlx": Mlx(),
    "modelopt": ModelOpt(),
    "onnx-qdq": OnnxQdq(),
    "recipe": NeutralRecipe(),
    "tensorrt": TensorRt(),
    "torchao": TorchAo(),
}
"""The shipped ones, by what stands behind `--to`."""


def exporter_names() -> tuple[str, ...]:
    """Names that `--to` takes: ours, then those of installed packages."""
    return tuple(dict.fromkeys([*EXPORTERS, *plugin_names(GROUP)]))


def exporter(name: str) -> Exporter:
    """The exporter of a name; ours where a package has the same one.

    Raises:
        ExportError: there is none, or what a package names is no exporter.
        PluginError: a package's cannot be imported, or two packages have it.
    """
    if name in EXPORTERS:
        return EXPORTERS[name]
    known = exporter_names()
    if name not in known:
        raise ExportError(
            f"--to {name}: no such target{nearest(name, known)} (known: {', '.join(known)})"
        )
    found = plugin(GROUP, name)
    if not isinstance(found, Exporter) or isinstance(found, type):
        raise ExportError(
            f"--to {name}: what entry point {GROUP} has is no exporter: expected an object with "
            f"summary, can_express, write and verify, got {found!r}"
        )
    return found


def refused_by(name: str, recipe: Recipe) -> tuple[Refusal, ...]:
    """Everything that a target cannot say of a recipe; empty where it says all.

    Accumulators are the consumer's own: no file format has a word for them, save one that says so
    (`keeps_sums`).

    Raises:
        ExportError: as `exporter`.
    """
    chosen = exporter(name)
    if recipe.assignment.sums and not getattr(chosen, "keeps_sums", False):
        return tuple(
            recipe.refusal(
                f"{node}/{SUM}",
                "it has no word for the accumulator of a product, which its kernels choose",
                "leave @ACCUMULATOR out, or write --to recipe",
            )
            for node in recipe.assignment.sums
        )
    return chosen.can_express(recipe)
