"""Annotations that another program wrote, by docs/annotations.md alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import hypothesis.strategies as st
import onnx
import pytest
from hypothesis import given, settings

from dse.errors import GraphError
from dse.graph.annotate import annotate
from dse.graph.annotations import Annotations, read_annotations
from hwmodels.formats.catalog import FORMATS, quantizer
from hwmodels.formats.quantizer import Quantizer

Write = Callable[[str], Path]
TEXT = "g (float[n, 4] x) => (float[n, 2] y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> " \
       "{ h = MatMul(x, w) y = Relu(h) }"  # fmt: skip
WEIGHT, INPUT = "MatMul_0/in1", "MatMul_0/in0"


def written(
    path: Path, entries: Mapping[str, object], nodes: Mapping[str, object] | None = None
) -> Path:
    """A model with these metadata; what is no text is written as JSON."""
    model = onnx.load(path)
    for props, texts in (
        (model.metadata_props, entries),
        (model.graph.node[0].metadata_props, nodes or {}),
    ):
        for key, value in texts.items():
            props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.save(model, path)
    return path


def test_what_the_specification_says_is_read(write: Write) -> None:
    found = read_annotations(
        written(
            write(TEXT),
            {
                "dse.annotations": "1",
                "dse.candidates": {WEIGHT: ["int8_channel", {"format": "nvfp4"}, None]},
                "dse.chosen": {WEIGHT: "int8_channel"},
                "dse.ties": {"all": [WEIGHT]},
                "other.tool": "is left alone",
            },
        )
    )
    weights = (quantizer("int8_channel"), quantizer("nvfp4"), None)
    assert found == Annotations(
        candidates={WEIGHT: weights},
        chosen={WEIGHT: quantizer("int8_channel")},
        ties={"all": (WEIGHT,)},
    )


def test_entries_at_nodes_count_as_much(write: Write) -> None:
    path = written(
        write(TEXT),
        {"dse.annotations": "1", "dse.candidates": {INPUT: ["bf16"]}},
        {"dse.candidates.in1": ["mxfp4", "bf16"], "dse.candidates.in0": ["bf16"],
         "dse.chosen.in1": '"mxfp4"'},
    )  # fmt: skip
    found = read_annotations(path)
    assert found is not None
    assert found.candidates == {
        INPUT: (quantizer("bf16"),),
        WEIGHT: (quantizer("mxfp4"), quantizer("bf16")),
    }
    assert found.chosen == {WEIGHT: quantizer("mxfp4")}


@pytest.mark.parametrize(
    ("entries", "nodes", "says"),
    [
        ({"dse.annotations": "2"}, {}, "dse.annotations: version 2 is newer than 1"),
        ({"dse.annotations": "one"}, {}, "dse.annotations: expected 1, got 'one'"),
        ({"dse.candidates": {WEIGHT: ["bf16"]}}, {}, "dse.candidates: without dse.annotations"),
        ({}, {"dse.candidates.in1": ["bf16"]}, "dse.candidates: without dse.annotations"),
        ({"dse.candidate": {}}, {}, "dse.candidate: unknown key; did you mean 'dse.candidates'"),
        ({"dse.candidates": "[1, 2"}, {}, "dse.candidates: not JSON"),
        ({"dse.candidates": [WEIGHT]}, {}, "dse.candidates: expected a JSON object, got list"),
        ({"dse.candidates": {WEIGHT: "bf16"}}, {}, f"{WEIGHT}: expected a list of formats"),
        ({"dse.candidates": {WEIGHT: []}}, {}, f"{WEIGHT}: expected a list of formats"),
        ({"dse.candidates": {WEIGHT: [8]}}, {}, f"{WEIGHT}: expected a format name or an object"),
        ({"dse.candidates": {WEIGHT: ["nvfp5"]}}, {}, f"dse.candidates: {WEIGHT}: .*nvfp5"),
        ({"dse.candidates": {"MatMul_1/in1": ["bf16"]}}, {},
         "MatMul_1/in1: the model has no such site; did you mean 'MatMul_0/in1'"),
        ({"dse.candidates": {WEIGHT: ["bf16"]}}, {"dse.candidates.in1": ["nvfp4"]},
         rf'{WEIGHT}: the model says \["bf16"\], the node \["nvfp4"\]'),
        ({}, {"dse.candidats.in1": ["bf16"]}, "dse.candidats.in1: MatMul_0: unknown key"),
        ({"dse.candidates": {WEIGHT: ["bf16"]}, "dse.chosen": {WEIGHT: "nvfp4"}}, {},
         rf"dse.chosen: {WEIGHT}: nvfp4 is none of its candidates \(bf16\)"),
        ({"dse.ties": {"a b": [WEIGHT]}}, {}, "dse.ties: 'a b': expected a name"),
        ({"dse.ties": {"a": ["no/in0"]}}, {}, "dse.ties: no/in0: the model has no such site"),
        ({"dse.ties": {"a": WEIGHT}}, {}, "dse.ties: a: expected a list of sites"),
    ],
)  # fmt: skip
def test_wrong_annotations_name_file_key_and_site(
    write: Write, entries: dict[str, object], nodes: dict[str, object], says: str
) -> None:
    told = {"dse.annotations": "1", **entries}
    if "without dse.annotations" in says:
        told.pop("dse.annotations")
    path = written(write(TEXT), told, nodes)
    with pytest.raises(GraphError, match=says) as raised:
        read_annotations(path)
    assert all(line.startswith(f"{path}: dse.") for line in str(raised.value).splitlines())


def test_everything_wrong_is_said_at_once(write: Write) -> None:
    entries = {"dse.annotations": "1", "dse.candidates": {WEIGHT: ["a8"], "no/in1": ["bf16"]}}
    with pytest.raises(GraphError) as raised:
        read_annotations(written(write(TEXT), entries))
    assert len(str(raised.value).splitlines()) == 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotated") / "model.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {TEXT}'), path)
    return path


QUANTIZERS: st.SearchStrategy[Quantizer] = st.builds(
    lambda name, words: quantizer(":".join([name, *words])),
    st.sampled_from(sorted(name for name in FORMATS if name != "fp32")),
    st.sampled_from([(), ("absmax",), ("hadamard",)]),
)
LISTS = st.lists(st.none() | QUANTIZERS, min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    candidates=st.dictionaries(st.sampled_from([WEIGHT, INPUT]), LISTS, min_size=1),
    picked=st.integers(0, 3),
    ties=st.dictionaries(st.sampled_from(["kv", "a.b"]), st.just((INPUT, WEIGHT))),
)
def test_what_is_written_is_read(
    plain: Path,
    candidates: dict[str, tuple[Quantizer | None, ...]],
    picked: int,
    ties: dict[str, tuple[str, ...]],
) -> None:
    chosen = {
        site: found
        for site, formats in candidates.items()
        if (found := formats[picked % len(formats)]) is not None
    }
    stated = Annotations(candidates=candidates, chosen=chosen, ties=ties)
    out = plain.with_name("out.onnx")
    annotate(plain, stated, out)
    assert read_annotations(out) == stated
