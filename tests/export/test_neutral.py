"""The neutral recipe: a document that others can check, and states that give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import deliver
from dse.export.neutral import NeutralRecipe, states_of
from dse.graph.assignment_json import from_json
from dse.numerics import load_states, quantize
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from tests.export.recipes import mlp_recipe

OWN = catalog.quantizer("e2m1@g32/ue5m3+fp32")
"""A format that goes into the document in full."""


@pytest.mark.parametrize(
    ("weight", "activation"),
    [("int4_channel:gptq", "int8:static"), ("posit8_1", None), (OWN, "e4m3_token"),
     ({"format": {"name": "mine", "element": {"name": "c", "kind": "codebook", "bits": 2,
      "codes": [-1.0, 0.0, 1.0, 2.0]}}}, None)],
)  # fmt: skip
def test_the_document_is_what_its_schema_says_and_an_assignment(
    weight, activation, tmp_path: Path
):
    found = weight if isinstance(weight, Quantizer | str) else catalog.quantizer(weight)
    recipe = mlp_recipe(tmp_path, found, activation)
    deliver(recipe, "recipe", tmp_path / "out", verify=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "recipe.json", "recipe.schema.json", "states.safetensors"
    ]  # fmt: skip
    document = json.loads((tmp_path / "out" / "recipe.json").read_text())
    schema = json.loads((tmp_path / "out" / document["$schema"]).read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "site": {}}, schema)
    text = json.dumps(document)
    assert from_json(text, recipe.graph, catalog.quantizer) == recipe.assignment


def test_the_states_give_the_emulators_numbers(tmp_path: Path):
    recipe = mlp_recipe(tmp_path, "int4_channel:gptq:bias_corrected", "uint8:static")
    deliver(recipe, "recipe", tmp_path / "r.json")
    states = load_states(tmp_path / "r.safetensors")
    key = "first/in1"
    weight, emulator = recipe.constant(key), recipe.bound[key]
    assert weight is not None
    assert isinstance(emulator, Emulator)
    found = quantize(weight, emulator.quantizer, axes=(0,), state=states[key])
    assert torch.equal(found, emulator(weight))
    assert "first/in0" in states, "a static scale"
    assert any(state.output_shift is not None for state in states.values())


def test_another_state_is_found_out(tmp_path: Path):
    recipe = mlp_recipe(tmp_path, "int8_channel", "int8:static")
    deliver(recipe, "recipe", tmp_path / "r.json")
    other = mlp_recipe(tmp_path, "int8_channel", "int8:static:percentile50.0")
    assert states_of(other.bound)
    deliver(other, "recipe", tmp_path / "s.json")
    (tmp_path / "s.safetensors").replace(tmp_path / "r.safetensors")
    with pytest.raises(ExportError, match="states that were read back are others"):
        NeutralRecipe().verify(recipe, tmp_path / "r.json")
