"""Recipes of tiny Hugging Face folders with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dse.evaluate.setup import build_evaluator
from dse.export.base import Recipe
from dse.graph.ir.assignment import Assignment
from dse.model import Model, open_model
from dse.space.schema import Data
from dse.zoo.split import Split, Splits
from hwmodels.formats.catalog import quantizer
from tests.export.recipes import recipe_of
from tests.imports import families

SAMPLES, LENGTH, VOCABULARY = 4, 16, 128
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (SAMPLES, LENGTH))


def folder(family: str, where: Path, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    """A network of a family, two layers deep, with a file of a tokenizer."""
    wide = {"num_hidden_layers": 2, "intermediate_size": 128, **changes}
    families.save(family, where, dtype=dtype, **wide)
    (where / "tokenizer_config.json").write_text('{"model_max_length": 128}\n')
    return where


def recipe(model: Model, formats: Mapping[str, str]) -> Recipe:
    """The model with formats by the end of a site's key (`q_proj/in1`); the longest end wins."""
    found = {}
    for site in model.analysis.sites:
        ends = [end for end in formats if site.key.endswith(end)]
        if ends:
            found[site.key] = quantizer(formats[max(ends, key=len)])
    return recipe_of_assignment(model, Assignment.of(found))


def shared(model: Model, format: str) -> Recipe:
    """The model whose head and look-up share one copy of their table in a format."""
    (tie,) = model.analysis.ties
    keys = (tie.look_up.key, *(one.site.key for one in tie.products))
    return recipe_of_assignment(model, Assignment.of(dict.fromkeys(keys, quantizer(format))))


def recipe_of_assignment(model: Model, assignment: Assignment) -> Recipe:
    """The model with an assignment, calibrated on random tokens."""
    split = Split(inputs=dict.fromkeys(model.graph.inputs, TOKENS), labels=None, kind="tokens")
    evaluator = build_evaluator(
        model.analysis,
        Data(source="given", calibration=SAMPLES, search=SAMPLES, report=SAMPLES),
        model.analysis.with_tables,
        tuple(assignment),
        splits=Splits(calibration=split, search=split, report=split),
    )
    return recipe_of(evaluator, assignment)


def of(family: str, where: Path, formats: Mapping[str, str], **changes: int) -> Recipe:
    """A recipe of a fresh folder."""
    path = folder(family, where, torch.bfloat16, **changes)
    return recipe(open_model(str(path)), formats)
