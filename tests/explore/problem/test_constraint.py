"""Constraints as users write them."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from dse.errors import SpaceError
from dse.explore.problem.constraint import parse_constraints
from dse.explore.problem.design import open_design
from dse.space.constraint import parse_constraint
from dse.space.load import parse_space

COLUMNS = ("latency_s", "weight_bytes", "b200.decode.latency_s")
UNITS = {"bits_per_weight": 125.0, "int8_share": 2000.0}
"""Of a thousand weights, with as many bytes of scales and biases."""


def test_numbers_and_prefixed_columns_are_read() -> None:
    parsed = parse_constraints(
        ["weight_bytes <= 2e9", "b200.decode.latency_s<=0.01"], COLUMNS, origin="s"
    )
    assert [str(constraint) for constraint in parsed] == [
        "weight_bytes<=2e+09",
        "b200.decode.latency_s<=0.01",
    ]
    assert parsed[0].holds({"weight_bytes": 2e9})
    assert not parsed[0].holds({"weight_bytes": 2.1e9})


def test_native_share_is_bounded_from_below() -> None:
    columns = (*COLUMNS, "native_share")
    parsed = parse_constraints(["native-only", "native_share>=0.9"], columns, origin="s")
    assert [str(constraint) for constraint in parsed] == ["native_share>=1", "native_share>=0.9"]
    assert parsed[1].holds({"native_share": 0.95})
    assert not parsed[0].holds({"native_share": 0.95})


def test_bits_per_weight_are_bytes_over_all_weights() -> None:
    (parsed,) = parse_constraints(
        ["bits_per_weight<=4.5"], ["weight_bytes"], origin="s", units=UNITS
    )
    assert str(parsed) == "weight_bytes<=562.5"
    several = parse_constraints(
        ["bits_per_weight<=4", "b.bits_per_weight<=8"],
        ["a.weight_bytes", "b.weight_bytes"],
        origin="s",
        targets=["a", "b"],
        units=UNITS,
    )
    assert [str(one) for one in several] == [
        "a.weight_bytes<=500", "b.weight_bytes<=500", "b.weight_bytes<=1000",
    ]  # fmt: skip


def test_shares_of_int8_weights_are_of_all_that_those_store() -> None:
    (parsed,) = parse_constraints(["int8_share<=0.75"], ["weight_bytes"], origin="s", units=UNITS)
    assert str(parsed) == "weight_bytes<=1500"


def test_a_network_of_int8_weights_has_all_of_its_share() -> None:
    text = (
        "model: zoo:fashion-resnet\ndata: {source: zoo:fashion-resnet}\n"
        "scenario: {phases: {call: {share: 1, dims: {batch: 1}}}}\n"
        "targets:\n  - {device: h100-sxm, runtime: free}\n"
        "candidates:\n  - match: {}\n"
        "    use: [{name: i8, weight: int8_channel}, {name: i4, weight: int4_channel}]\n"
        "constraints: [int8_share<=1]\n"
    )
    design = open_design(parse_space(text, origin="s"), origin="s", folder=Path())
    wide, narrow = ((at,) * len(design.problem.variables) for at in range(2))
    (bound,) = design.constraints
    assert bound.limit == design.total(wide)["weight_bytes"] > design.total(narrow)["weight_bytes"]


def test_bits_of_a_network_with_small_matrices_count_them(tmp_path: Path) -> None:
    """An 8 x 8 matrix is bytes of `weight_bytes`, and has to be weights of its bits too."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, u)  y = MatMul(a, v) }"""
    model = onnx.parser.parse_model(text)
    for name in ("u", "v"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(8, dtype="f4"), name))
    onnx.save(model, tmp_path / "m.onnx")
    space = (
        "model: m.onnx\ndata: {source: d.npz}\n"
        "scenario: {phases: {call: {share: 1, dims: {n: 1}}}}\n"
        "targets:\n  - {device: h100-sxm, runtime: free}\n"
        "candidates:\n  - {match: {}, use: [bf16, w8a16]}\n"
        "constraints: [bits_per_weight<=16]\n"
    )
    design = open_design(parse_space(space, origin="s"), origin="s", folder=tmp_path)
    (bound,) = design.constraints
    assert bound.limit == 2 * 2 * 64 == design.total((0,) * 2)["weight_bytes"]


def test_a_column_without_its_target_is_bounded_on_every_target() -> None:
    columns = ("a.latency_s", "b.latency_s", "a.native_share", "b.native_share")
    parsed = parse_constraints(
        ["latency_s<=1", "native-only"], columns, origin="s", targets=["a", "b"]
    )
    assert [constraint.column for constraint in parsed] == list(columns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight_bytes < 3", "expected '<column><=<number>'"),
        ("weight_byte<=3", "did you mean 'weight_bytes'"),
        ("weight_bytes<=1e", "is not a finite number"),
        ("latency_s<=fast", "is not a finite number"),
        ("weight_bytes>=3", "at most: write 'weight_bytes<=3'"),
    ],
)
def test_others_are_refused_with_their_place(text: str, says: str) -> None:
    with pytest.raises(SpaceError, match=f"^s.yaml: constraints.1: .*{says}"):
        parse_constraints(["latency_s<=1", text], COLUMNS, origin="s.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("weight_bytes<=2e9", "weight_bytes<=2e+09"),
        ("weight_bytes<=1234567890", "weight_bytes<=1234567890.0"),
        ("quality_loss<=0.05", "quality_loss<=0.05"),
    ],
)
def test_a_bound_is_written_exactly(text: str, said: str) -> None:
    assert str(parse_constraint(text, origin="s")) == said
    assert parse_constraint(said, origin="s") == parse_constraint(text, origin="s")
