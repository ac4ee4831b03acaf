"""The target `recipe`: assignment, schema and calibrated states, for tools that we don't know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from dse.errors import DseError, ExportError
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import Shift
from dse.export.base import Check, Recipe, Refusal
from dse.graph.assignment_json import from_json, to_json
from dse.numerics import QuantizerState, StateError, load_states, save_states, states_digest
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime, runtime_names
from hwmodels.runtimes.runtime import PLAIN_ELEMENTS, OperandLayout

SCHEMA = Path(__file__).parent / "recipe.schema.json"
VERSION = 1
"""Of the section `recipe`, raised when a reader of older ones would misread it."""


class NeutralRecipe:
    """`recipe.json`, its JSON schema and the states in safetensors."""

    keeps_sums = True
    summary = "a folder (or NAME.json and companions) with assignment, JSON schema and states"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Nothing is refused: formats are written in full."""
        return ()

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the document, the schema and the states.

        A path that ends in `.json` is the document, which `--assignment` takes too, with the
        others beside it; any other one is a folder.
        """
        document, schema, state = _files(out)
        document.parent.mkdir(exist_ok=True)
        states = states_of(recipe.bound)
        digest = save_states(states, state)
        content = to_json(recipe.assignment, recipe.graph)
        content["$schema"] = schema.name
        content["recipe"] = {
            "version": VERSION,
            "trial": recipe.trial,
            "model": recipe.name,
            "states": {"file": state.name, "digest": digest},
            "emulated_only": emulated_only(recipe),
        }
        document.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        schema.write_bytes(SCHEMA.read_bytes())

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The assignment and the states read back, against those that were written.

        Raises:
            ExportError: they differ.
        """
        document, _, state = _files(out)
        try:
            text = document.read_text(encoding="utf-8")
            assignment = from_json(text, recipe.graph, catalog.quantizer)
            states = load_states(state)
        except (DseError, StateError) as error:
            raise ExportError(f"recipe: what was written cannot be read: {error}") from error
        if assignment != recipe.assignment:
            raise ExportError("recipe: the assignment that was read back is another one")
        if states_digest(states) != states_digest(states_of(recipe.bound)):
            raise ExportError("recipe: the states that were read back are others")
        return (
            Check(
                checker="read back",
                compared=f"{len(tuple(assignment))} sites, {len(states)} states",
                difference=0.0,
                note=_note(emulated_only(recipe)),
            ),
        )


def states_of(bound: Mapping[str, Quantize]) -> dict[str, QuantizerState]:
    """Values that calibration gave or learned, by site; dynamic scales have none.

    The correction of a mean stands where it is added: at a bias, or at an output.
    """
    found: dict[str, QuantizerState] = {}
    for key, quantize in bound.items():
        state = _state(quantize)
        if isinstance(quantize, Shift):
            inner = _state(quantize.then) if quantize.then is not None else None
            state = replace(inner or QuantizerState(), output_shift=quantize.shift)
        if state is not None:
            found[key] = state.apart()
    return found


def _state(quantize: Quantize) -> QuantizerState | None:
    if not isinstance(quantize, Emulator):
        return None
    return quantize.fixed and replace(quantize.fixed, output_shift=None)


def emulated_only(recipe: Recipe) -> list[str]:
    """The quantizers of a recipe that no kernel of a runtime in the catalogue takes there.

    A weight may be stored in what no operand that is made at run time can be.
    """
    pairs = tuple(recipe.assignment.without_sums)
    sites = recipe.program.analysis.sites_with(key for key, _ in pairs)
    used = {(sites[key].role == "weight", quantizer.name): quantizer for key, quantizer in pairs}
    lacking = {
        name
        for (is_weight, name), quantizer in used.items()
        if not any(layout.accepts(quantizer, "bf16") for layout in _layouts(is_weight=is_weight))
    }
    return sorted(lacking)


@cache
def _layouts(*, is_weight: bool) -> tuple[OperandLayout, ...]:
    """Operands of kernels; an architect's runtime, which takes everything, has none."""
    plain = OperandLayout(elements=PLAIN_ELEMENTS)
    shipped = [load_runtime(name) for name in runtime_names()]
    modes = [mode for one in shipped if not one.every_combination for mode in one.modes]
    layouts = [
        layout
        for mode in modes
        for operand, layout in mode.operands.items()
        if (operand == "weight") == is_weight
    ]
    return plain, *layouts


def _note(formats: Iterable[str]) -> str:
    named = ", ".join(formats)
    return f"emulated only, no runtime has them: {named}" if named else ""


def _files(out: Path) -> tuple[Path, Path, Path]:
    """Document, schema and states."""
    if out.suffix == ".json":
        return out, out.with_suffix(".schema.json"), out.with_suffix(".safetensors")
    return out / "recipe.json", out / "recipe.schema.json", out / "states.safetensors"
