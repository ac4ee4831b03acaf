"""The layers that mind most, in the words of other tools, read by what those tools read with."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import pytest
import torch
import transformers
import yaml
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.utils import match_named_modules

from dse.errors import ExportError
from dse.export.lines import PRESETS, tool_lines
from dse.imports.facts import facts_of
from dse.model import Model, open_model
from dse.sensitivity.table import Score, Sensitivity
from dse.space.build import build_problem
from dse.space.load import parse_space
from dse.space.problem import Problem
from tests.cli.conftest import Dse
from tests.export import folders

SPACE = """
model: m
data: {source: none.npz}
scenario: {phases: {one: {dims: {batch: 1, sequence: 16}}}}
targets: [{name: server, device: h100-sxm, runtime: vllm}]
candidates:
  - {match: {kind: gemm}, use: [bf16, w8a16, w4a16]}
  - {match: {}, use: [bf16]}
objectives: [quality_loss, weight_bytes]
"""
SPACES = {"w4a16": SPACE, "posit": SPACE.replace("w8a16, w4a16", "posit8_1")}
FIRST, SECOND = "model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(str(folders.folder("llama", tmp_path_factory.mktemp("lines") / "m")))


def problem_of(model: Model, space: str) -> Problem:
    return build_problem(parse_space(space, origin="s.yaml"), model.analysis.regions)


def scored(problem: Problem, worst: tuple[str, ...]) -> Sensitivity:
    """A table in which the variables of these modules mind most, in this order."""

    def loss(modules: tuple[str, ...], bits: int) -> float:
        found = [len(worst) - n for n, one in enumerate(worst) if one in modules]
        return bits * (1.0 + sum(found))

    return Sensitivity(
        scores=tuple(
            Score(variable=one.name, choice=choice.name, stderr=0.0, samples=1,
                  loss=loss(one.modules, n))
            for one in problem.variables
            for n, choice in enumerate(one.choices)
        )
    )  # fmt: skip


def lines(tool: str, model: Model, *worst: str, space: str = "w4a16") -> str:
    problem = problem_of(model, SPACES[space])
    return tool_lines(tool, scored(problem, worst), problem, model.graph, top=len(worst))


def test_llama_cpp_gets_types_of_tensors_that_a_file_of_the_model_has(model: Model) -> None:
    found = lines("llama.cpp", model, FIRST, SECOND, "lm_head").splitlines()
    parts = [line.partition("=") for line in found]
    assert all(hasattr(gguf.GGMLQuantizationType, type_.upper()) for _, _, type_ in parts)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2).mapping.values()
    tensors = {f"{name}.weight" for _, name in names}
    hit = [{name for name in tensors if re.search(regex, name)} for regex, _, _ in parts]
    # The head is tied: a file has it as the table of embeddings only.
    assert {"blk.0.attn_k.weight", "blk.1.ffn_down.weight", "token_embd.weight"} <= set.union(*hit)
    assert all(len(one) == 1 for one in hit)


def test_a_recipe_for_llm_compressor_leaves_whole_fused_layers_out(model: Model) -> None:
    recipe = yaml.safe_load(lines("llm-compressor", model, FIRST, SECOND))
    (modifier,) = recipe["default_stage"]["default_modifiers"].values()
    assert preset_name_to_scheme(modifier["scheme"], modifier["targets"]).weights.num_bits == 4
    facts = facts_of(model.graph)
    assert facts is not None
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(facts.folder)
        )
    every = dict(match_named_modules(network, modifier["targets"], []))
    kept = dict(match_named_modules(network, modifier["targets"], modifier["ignore"]))
    assert {FIRST, SECOND, FIRST.replace("k_proj", "q_proj")} <= set(every) - set(kept)
    assert set(every) - set(kept) == set(modifier["ignore"])


def test_every_preset_is_one_of_compressed_tensors() -> None:
    for name in PRESETS.values():
        assert preset_name_to_scheme(name, ["Linear"]).weights is not None


def test_aimet_gets_names_of_nodes(model: Model) -> None:
    assert set(lines("aimet", model, FIRST, SECOND).split()) >= {FIRST, SECOND}


def test_a_space_without_a_scheme_of_the_tool_is_refused(model: Model) -> None:
    with pytest.raises(ExportError, match=r"no choice of this space is a scheme.*w4a16"):
        lines("llm-compressor", model, FIRST, space="posit")


@pytest.mark.parametrize("tool", ["llama.cpp", "llm-compressor"])
def test_a_model_that_is_no_folder_has_no_such_names(tool: str) -> None:
    resnet = open_model("zoo:fashion-resnet")
    problem = problem_of(resnet, SPACE.replace("kind: gemm", "kind: conv2d"))
    with pytest.raises(ExportError, match="no such folder; give the folder, or --lines aimet"):
        tool_lines(tool, scored(problem, ()), problem, resnet.graph, top=1)


def test_the_command_prints_lines_and_saves_the_table(dse: Dse, tmp_path: Path) -> None:
    asked = ("sensitivity", "zoo:fashion-resnet", "--samples", 1, "--method", "gradient")
    done = dse(*asked, "--lines", "aimet", "--top", 2, "--csv", tmp_path / "s.csv", "--quiet")
    assert done.code == 0, done.err
    names = done.out.split()
    assert names
    assert set(names) <= {node.name for node in open_model("zoo:fashion-resnet").graph.nodes}
    assert Sensitivity.read(tmp_path / "s.csv").scores
    refused = dse(*asked, "--lines", "llamacpp")
    assert refused.code == 2
    assert "did you mean 'llama.cpp'" in refused.err
