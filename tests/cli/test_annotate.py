"""An annotated model is a space; what a trial has chosen is written the same way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from dse.graph.annotations import read_annotations
from tests.cli.conftest import Dse

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 32] x) => (float[batch, 8] logits)
{ a = MatMul(x, u)  b = Relu(a)  logits = MatMul(b, v) }
"""
CANDIDATES = {"MatMul_0/in1": ["bf16", "nvfp4"], "MatMul_2/in1": ["bf16", "int8_channel"]}


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A model that was annotated by hand, and data beside it."""
    model, random = onnx.parser.parse_model(TEXT), np.random.default_rng(0)
    for name, shape in {"u": (32, 64), "v": (64, 8)}.items():
        data = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    model.metadata_props.add(key="dse.annotations", value="1")
    model.metadata_props.add(key="dse.candidates", value=json.dumps(CANDIDATES))
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=random.standard_normal((48, 32)).astype(np.float32))
    return tmp_path / "m.onnx"


def test_a_search_takes_candidates_from_the_model_and_a_trial_goes_back(
    dse: Dse, annotated: Path, tmp_path: Path
) -> None:
    run, chosen = tmp_path / "run", tmp_path / "chosen.onnx"
    found = dse("search", annotated, "--data", tmp_path / "d.npz", "--target", "b200-sxm:free",
                "--trials", 4, "--out", run)  # fmt: skip
    assert found.code == 0, found.err
    manifest = json.loads((run / "manifest.json").read_text())
    offered = {str(one["use"]) for one in manifest["space"]["candidates"]}
    assert all("nvfp4" in use or "int8_channel" in use for use in offered)
    trial = json.loads((run / "front.json").read_text())[0]
    assert dse("annotate", run, "--trial", trial["trial"], "-o", chosen).code == 0
    read = read_annotations(chosen)
    assert read is not None
    sites = {site: found.name for site, found in read.chosen.items()}
    assert sites == trial["assignment"]["sites"]
    assert read.candidates.keys() >= CANDIDATES.keys()
    (tmp_path / "a.json").write_text(json.dumps(trial["assignment"]))
    costs = [
        json.loads(dse("predict", annotated, "--device", "b200-sxm:free", "--assignment", given,
                       "--dim", "batch=1", "--json").out)
        for given in (tmp_path / "a.json", chosen)
    ]  # fmt: skip
    assert costs[0] == costs[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("annotate", "m.onnx"), "give either --space SPACE.yaml or --target"),
        (("annotate", "m.onnx", "--trial", 3), "m.onnx is no run folder"),
        (("annotate", "m.onnx", "--target", "b200", "--space", "s.yaml"), "give either"),
    ],
)
def test_annotate_says_what_it_needs(
    dse: Dse, annotated: Path, arguments: tuple[str, str], says: str
) -> None:
    out = annotated.with_name("out.onnx")
    outcome = dse(arguments[0], annotated, *arguments[2:], "-o", out)
    assert (outcome.code, says in outcome.err) == (2, True)
    assert not out.exists()


def test_a_model_without_chosen_formats_is_no_assignment(dse: Dse, annotated: Path) -> None:
    outcome = dse("predict", annotated, "--device", "b200-sxm:free", "--assignment", annotated,
                  "--dim", "batch=1")  # fmt: skip
    assert outcome.code == 2
    assert "has no chosen formats" in outcome.err


def test_a_wrong_annotation_ends_a_search_with_file_key_and_site(
    dse: Dse, annotated: Path, tmp_path: Path
) -> None:
    model = onnx.load(annotated)
    model.metadata_props[1].value = '{"MatMul_0/in1": ["nvfp5"]}'
    onnx.save(model, annotated)
    outcome = dse("search", annotated, "--data", tmp_path / "d.npz", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert f"{annotated}: dse.candidates: MatMul_0/in1: unknown" in outcome.err
    assert not (tmp_path / "run").exists()
