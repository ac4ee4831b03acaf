"""A space as annotations and back: the same variables, choices and ties."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings

from dse.errors import SpaceError
from dse.graph.annotate import annotate
from dse.graph.annotations import Annotations, annotations_of
from dse.model import Model, open_model
from dse.space.annotate import annotations_of_space
from dse.space.annotated import annotated_candidates
from dse.space.build import build_problem
from dse.space.init import Draft, space_text
from dse.space.load import parse_space
from dse.space.problem import Problem
from dse.space.schema import Mode, Rule, Space, Tie
from hwmodels.formats.catalog import SCHEMES, quantizer
from hwmodels.formats.quantizer import Quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 32] x) => (float[batch, 32] y)
{ a = MatMul(x, u)  b = Relu(a)  c = MatMul(b, v)  d = Relu(c)  y = MatMul(d, w) }
"""
NAMES = ("MatMul_0", "MatMul_2", "MatMul_4")
FORMATS = ("bf16", "nvfp4", "int8_channel", "int4_g32:gptq", "e4m3_tensor", "uint4@g32/fp16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    proto = onnx.parser.parse_model(TEXT)
    for name in "uvw":
        data = np.eye(32, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    path = tmp_path_factory.mktemp("annotated") / "m.onnx"
    onnx.save(proto, path)
    return open_model(str(path))


def reopened(model: Model, annotations: Annotations) -> Model:
    """The model as a file that has these annotations."""
    assert model.graph.path is not None
    out = model.graph.path.with_name("out.onnx")
    annotate(model.graph.path, annotations, out)
    return open_model(str(out))


def read_problem(model: Model) -> Problem:
    """What a search of an annotated model would search."""
    space = parse_space(space_text(model, "m.onnx", Draft(data="d.npz")), origin="draft")
    return build_problem(space, model.analysis.regions)


Meant = list[tuple[str, tuple[str, ...], list[dict[str, Quantizer]]]]


def meant(problem: Problem) -> Meant:
    """Variables by what they do: name, sites, quantizers of every choice."""
    return [
        (v.name, tuple(s.key for s in v.sites), [dict(c.quantizers) for c in v.choices])
        for v in problem.variables
    ]


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Rules of schemes, formats and modes; some regions tied."""
    mode = st.builds(
        lambda number, weight, activation: Mode(
            name=f"mine{number}", weight=weight, activation=activation
        ),
        st.integers(0, 99),
        st.sampled_from([None, *FORMATS]),
        st.sampled_from([None, *FORMATS]),
    )
    use = st.sampled_from([*SCHEMES, "bf16", "nvfp4", "int8_channel"]) | mode
    uses = st.lists(use, min_size=1, max_size=4, unique_by=lambda one: getattr(one, "name", one))
    tied = draw(st.sets(st.sampled_from(NAMES)).filter(lambda names: len(names) != 1))
    shared = draw(uses)
    rules = [
        {"match": {"name": region}, "use": shared if node in tied else draw(uses)}
        for node, region in zip(NAMES, REGIONS, strict=True)
    ]
    ties = [
        {"name": "both", "match": {"name": region}}
        for node, region in zip(NAMES, REGIONS, strict=True)
        if node in tied
    ]
    return Space.model_validate(
        {
            "model": "m.onnx",
            "data": {"source": "d.npz"},
            "targets": ["h100-sxm"],
            "candidates": [Rule.model_validate(rule) for rule in rules],
            "ties": [Tie.model_validate(tie) for tie in ties],
        }
    )


REGIONS = ("fc1", "fc2", "head")


@settings(max_examples=60, deadline=None)
@given(space=spaces())
def test_an_annotated_model_is_the_space_that_it_was_annotated_with(
    model: Model, space: Space
) -> None:
    before = build_problem(space, model.analysis.regions)
    again = reopened(model, annotations_of_space(model, space, origin="space"))
    assert meant(read_problem(again)) == meant(before)


@pytest.mark.parametrize("scheme", [*SCHEMES, "bf16"])
def test_schemes_keep_their_names(model: Model, scheme: str) -> None:
    content = {"model": "m", "data": {"source": "d"}, "targets": ["h100-sxm"],
               "candidates": [{"use": ["fp16", scheme]}]}  # fmt: skip
    space = Space.model_validate(content)
    again = reopened(model, annotations_of_space(model, space, origin="space"))
    assert [c.name for c in read_problem(again).variables[0].choices] == ["fp16", scheme]


def test_lists_of_one_hold_everywhere_and_what_is_not_named_stays(model: Model) -> None:
    wide, narrow = quantizer("bf16"), quantizer("nvfp4")
    stated = Annotations(
        candidates={
            "MatMul_0/in1": (wide, narrow),
            "MatMul_0/in0": (wide,),
            "MatMul_2/in1": (narrow,),
        }
    )
    first, second, third = read_problem(reopened(model, stated)).variables
    assert [dict(c.quantizers) for c in first.choices] == [
        {"activation": wide, "weight": wide}, {"activation": wide, "weight": narrow},
    ]  # fmt: skip
    assert [dict(c.quantizers) for c in second.choices] == [{"weight": narrow}]
    assert [(c.name, dict(c.quantizers)) for c in third.choices] == [("kept", {})]


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        (
            Annotations(
                candidates={
                    "MatMul_0/in1": (None, quantizer("nvfp4")),
                    "MatMul_0/in0": (None, None, None),
                }
            ),
            "dse.candidates: MatMul_0/in1: 2 entries, but MatMul_0/in0 of the same kernel has 3",
        ),
        (
            Annotations(candidates={"MatMul_0/out0": (None,)}),
            "dse.candidates: MatMul_0/out0: no product multiplies it",
        ),
        (
            Annotations(
                candidates={"MatMul_0/in1": (quantizer("nvfp4"),)},
                ties={"a": ("MatMul_0/in1", "MatMul_2/in1")},
            ),
            "dse.candidates: MatMul_2/in1: null, but MatMul_0/in1, which the same tie holds",
        ),
        (
            Annotations(ties={"a": ("MatMul_0/in1",), "b": ("MatMul_0/in0",)}),
            "dse.ties: b: MatMul_0/in0: its kernel is in tie a too",
        ),
    ],
)
def test_contradictions_name_key_and_tensors(model: Model, stated: Annotations, says: str) -> None:
    found = annotations_of(reopened(model, stated).analysis)
    assert found is not None
    with pytest.raises(SpaceError) as raised:
        annotated_candidates(found, model.analysis.regions, origin="m.onnx")
    assert f"m.onnx: {says}" in str(raised.value)


def test_the_examples_of_the_specification_are_what_it_says() -> None:
    text = Path("docs/annotations.md").read_text()
    candidates, chosen = (json.loads(block.split("```")[0]) for block in text.split("```json")[1:])
    assert len({len(formats) for formats in candidates.values()}) == 1
    for spec in (*(one for formats in candidates.values() for one in formats), *chosen.values()):
        quantizer(spec)
