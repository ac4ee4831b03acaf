"""Words of runtime files, beside the operators of ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from hwmodels.errors import RuntimeModeError
from hwmodels.runtimes.load import RUNTIMES, load_runtime
from hwmodels.runtimes.words import DETAILS, ONNX, OWN, TAGS, misspelt

OPSET = 22


def test_every_operator_of_onnx_on_tensors_is_known() -> None:
    schemas = [
        one
        for one in onnx.defs.get_all_schemas()
        if one.domain == "" and one.since_version <= OPSET
    ]
    parts = ("sequence", "optional")
    flow = ("if", "loop", "scan", "splittosequence", "concatfromsequence")
    there = {one.name.lower() for one in schemas}
    expected = {name for name in there if name not in flow and not name.startswith(parts)}
    assert expected <= ONNX
    assert not OWN & ONNX


@pytest.mark.parametrize(
    ("field", "words", "message"),
    [
        ("epilogue", "[bias, rellu]", "epilogue: unknown operation 'rellu'; did you mean 'relu'"),
        ("quantize_into", "[softmx]", "quantize_into: unknown .*did you mean 'softmax'"),
        ("pieces", "{ropes: {kernels: 2, passes: 1}}", "pieces: unknown .*did you mean 'rope'"),
    ],
)
def test_a_slip_of_an_operator_s_name_is_refused(
    field: str, words: str, message: str, tmp_path: Path
) -> None:
    lines = RUNTIMES.path("vllm").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(f"{field}:")]
    text = "\n".join(kept).replace("name: vllm", "name: mine", 1)
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}\n{field}: {words}\n", encoding="utf-8")
    with pytest.raises(RuntimeModeError, match=message):
        load_runtime(path)


def test_an_operator_of_somebody_s_own_is_a_word() -> None:
    assert misspelt(["mywarp", "xielu", "zzz"], DETAILS) == []
    assert misspelt(["gemm", "silu_mul", "layernorm"], TAGS) == []
