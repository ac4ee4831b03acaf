"""The most sensitive layers, in the words of tools that quantize by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dse.errors import ExportError, nearest
from dse.export.base import Refusal
from dse.export.gguf.metadata import network_of
from dse.export.hugging_face.linears import FUSED
from dse.graph.ir.graph import Graph
from dse.imports.facts import facts_of
from dse.sensitivity.table import Sensitivity
from dse.space.problem import Problem

KEPT = "q8_0"
"""The type in which a llama.cpp file keeps what minds fewer bits."""
PRESETS: Mapping[str, str] = {
    "w4a16": "W4A16", "w8a16": "W8A16", "w8a8_int8": "W8A8", "w8a8_fp8": "FP8",
    "w8a8_fp8_dynamic": "FP8_DYNAMIC", "w4a4_nvfp4": "NVFP4", "w4a4_mxfp4": "MXFP4",
}  # fmt: skip
"""Schemes of compressed-tensors by ours."""
TABLES = ("Gather", "GatherBlockQuantized")
"""Operators whose weight is a table of embeddings, no linear layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitive:
    """The layers that mind most, the worst first."""

    graph: Graph
    modules: tuple[str, ...]
    """Nodes with weights."""
    choices: tuple[str, ...]
    """Choices of the table, the most harmful first."""


def check_tool(tool: str) -> None:
    """Refuses a tool that is none of `TOOLS`, before anything is measured.

    Raises:
        ExportError: no such tool.
    """
    if tool not in TOOLS:
        raise ExportError(
            f"--lines {tool}: no such tool{nearest(tool, TOOLS)}; expected one of "
            f"{', '.join(TOOLS)}"
        )


def tool_lines(tool: str, table: Sensitivity, problem: Problem, graph: Graph, *, top: int) -> str:
    """Lines that keep the most sensitive layers from the fewest bits.

    Args:
        tool: a name of `TOOLS`.
        table: losses of every choice alone.
        problem: the variables of the table.
        graph: the model.
        top: variables, by the loss of their worst choice.

    Raises:
        ExportError: no such tool, or one that has no names for this model's layers.
    """
    check_tool(tool)
    modules = {one.name: one.modules for one in problem.variables}
    ranked = table.ranked()
    worst = [name for name in dict.fromkeys(one.variable for one in ranked) if modules[name]]
    found = Sensitive(
        graph=graph,
        modules=tuple(dict.fromkeys(one for name in worst[:top] for one in modules[name])),
        choices=tuple(dict.fromkeys(one.choice for one in ranked)),
    )
    if not found.modules:
        raise ExportError(f"--lines {tool}: no variable of this space has a weight")
    return TOOLS[tool](found)


def _llama_cpp(found: Sensitive) -> str:
    """NAME=TYPE a line, as `llama-quantize --tensor-type` takes it (`--tensor-type-file` all)."""
    try:
        import gguf  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ExportError("--lines llama.cpp needs gguf-py: pip install 'dse[gguf]'") from error
    network = network_of(_folder(found.graph, "llama.cpp"))
    if isinstance(network, Refusal):
        raise ExportError(f"--lines llama.cpp: {network.reason}; {network.instead}")
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == network.family.arch)
    names = gguf.get_tensor_name_map(kind, network.layers)
    lines: list[str] = []
    for module in found.modules:
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise ExportError(
                f"--lines llama.cpp: {module}: llama.cpp's {network.family.arch} has no tensor "
                "for it; a space whose variables are layers of the checkpoint has names"
            )
        if name == "output.weight" and network.config.tie_word_embeddings:
            name = "token_embd.weight"
        lines.append(f"^{re.escape(name)}$={KEPT}")
    return "\n".join(dict.fromkeys(lines))


def _llm_compressor(found: Sensitive) -> str:
    """A recipe that quantizes every linear layer but these, and what is fused with them."""
    _folder(found.graph, "llm-compressor")
    scheme = next((PRESETS[one] for one in found.choices if one in PRESETS), None)
    if scheme is None:
        raise ExportError(
            "--lines llm-compressor: no choice of this space is a scheme that it has; expected "
            f"one of {', '.join(PRESETS)} among the candidates"
        )
    nodes = found.graph.by_name
    linears = [one for one in found.modules if nodes[one].op_type not in TABLES]
    ignore = list(dict.fromkeys(name for one in linears for name in _together(one, nodes)))
    modifier = {"targets": ["Linear"], "scheme": scheme, "ignore": ignore}
    recipe = {"default_stage": {"default_modifiers": {"QuantizationModifier": modifier}}}
    return json.dumps(recipe, indent=2)  # which is YAML


def _together(module: str, nodes: Iterable[str]) -> list[str]:
    """The layers that a runtime loads as one with this: it keeps all of them or none."""
    parent, _, last = module.rpartition(".")
    names = next((names for names in FUSED if last in names), (last,))
    beside = [f"{parent}.{name}" if parent else name for name in names]
    known = set(nodes)
    return [name for name in beside if name in known]


def _aimet(found: Sensitive) -> str:
    """A name a line: AIMET calls layers as the nodes of the ONNX file are called."""
    return "\n".join(found.modules)


def _folder(graph: Graph, tool: str) -> Path:
    """The folder whose modules the nodes are called after."""
    facts = facts_of(graph)
    if facts is None:
        raise ExportError(
            f"--lines {tool}: it names layers as their Hugging Face folder does, and the model is "
            "no such folder; give the folder, or --lines aimet"
        )
    return Path(facts.folder)


TOOLS: Mapping[str, Callable[[Sensitive], str]] = {
    "llama.cpp": _llama_cpp,
    "llm-compressor": _llm_compressor,
    "aimet": _aimet,
}
"""Tools that read such lines."""
