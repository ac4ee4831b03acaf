"""Figures of tools go to the columns that were priced at the same sizes, or are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.bench.folder import read_folder
from dse.errors import RunError
from dse.explore.bench_results import FolderResults, folder_results
from dse.explore.problem.design import Design, open_design
from dse.explore.workload import workload
from dse.export.loop.steps import vllm_load
from dse.space.load import load_space
from dse.space.schema import OfferedLoad
from tests.bench import outputs

SPACE = Path("spaces/serving.yaml")
DIGEST, OTHER = "0123456789abcdef", "fedcba9876543210"
KNOWN = {DIGEST: (0,), OTHER: (1,)}


@pytest.fixture(scope="module")
def design() -> Design:
    return open_design(load_space(SPACE), origin=str(SPACE), folder=SPACE.parent)


def told(design: Design, folder: Path) -> FolderResults:
    return folder_results(read_folder(folder), KNOWN, workload(design, "h100"))


def test_a_load_of_the_scenarios_sizes_is_told_as_serving_numbers(
    design: Design, tmp_path: Path
) -> None:
    place = tmp_path / "results" / DIGEST
    outputs.vllm_serve(place, prompt=6144, generated=512, requests=16, ttft_ms=900, tpot_ms=20)
    outputs.vllm_throughput(place, prompt=6144, generated=512, per_second=2)
    (result,) = told(design, tmp_path).results
    assert result.digest == DIGEST
    assert result.values == {
        "ttft_s": 0.9, "tpot_s": 0.02, "full_tokens_per_s_per_gpu": 1024,
        "tokens_per_s_per_gpu": pytest.approx(16 * 8 * 512 / (512 * 0.02 * 8)),
    }  # fmt: skip


def test_batches_are_told_as_phases_and_phases_add_up(design: Design, tmp_path: Path) -> None:
    place = tmp_path / "results" / DIGEST
    outputs.vllm_latency(place, "vllm-latency_batch1_input6144_output1.json", 0.8)
    outputs.vllm_latency(place, "vllm-latency_batch16_input6384_output1.json", 13.0)
    outputs.vllm_latency(place, "vllm-latency_batch16_input6384_output33.json", 13.64)
    outputs.vllm_latency(place, "vllm-latency_batch16_input1024_output1.json", 2.0)
    found = told(design, tmp_path)
    (result,) = found.results
    assert result.values == {
        "prefill.latency_s": 0.8,
        "decode.latency_s": pytest.approx(0.02),
        "latency_s": pytest.approx(16 * 0.8 + 512 * 0.02),
    }
    (remark,) = found.remarks  # and none on what a decoding step was subtracted from
    assert "16 x 1024 tokens" in remark
    assert "is no phase of the run (prefill is 1 x 6144 tokens" in remark


def loaded(**load: object) -> Design:
    """The space with another load."""
    space = load_space(SPACE)
    scenario = space.scenario.model_copy(update={"load": OfferedLoad.model_validate(load)})
    space = space.model_copy(
        update={"scenario": scenario, "objectives": ("quality_loss", "latency_s")}
    )
    return open_design(space, origin=str(SPACE), folder=SPACE.parent)


def test_requests_that_wait_for_one_another_are_told_as_the_load_that_they_make(
    tmp_path: Path,
) -> None:
    place = tmp_path / "results" / DIGEST
    outputs.vllm_serve(place, prompt=6144, generated=512, requests=64, ttft_ms=900, tpot_ms=20)
    (result,) = told(loaded(clients=64), tmp_path).results
    answered = 64 * 8 / (512 * 0.02 * 8)
    assert result.values == {
        "ttft_mean_s": 0.9, "ttft_p50_s": 0.9, "ttft_p99_s": 1.8,
        "tpot_mean_s": 0.02, "tpot_p99_s": 0.04,
        "rate": answered, "gpu_s_per_request": pytest.approx(1 / answered),
    }  # fmt: skip
    (remark,) = told(loaded(clients=32), tmp_path).remarks
    assert "64 at once" in remark


def test_requests_that_come_by_themselves_fill_no_memory(tmp_path: Path) -> None:
    """Their answers a second are as many as came, not as many as could be answered."""
    place = tmp_path / "results" / DIGEST
    outputs.vllm_serve(
        place, prompt=6144, generated=512, requests=None, ttft_ms=90, tpot_ms=20, rate=1.02
    )
    (result,) = told(loaded(rate=1), tmp_path).results
    assert {"ttft_p99_s", "rate"} <= result.values.keys()
    assert not {"full_tokens_per_s_per_gpu", "ttft_s"} & result.values.keys()
    found = told(loaded(rate=3), tmp_path)
    assert found.results == ()
    assert "1.02 requests a second" in found.remarks[0]


def test_a_result_without_its_throughput_is_read(tmp_path: Path) -> None:
    place = tmp_path / "results" / DIGEST
    path = outputs.vllm_serve(
        place, prompt=6144, generated=512, requests=64, ttft_ms=900, tpot_ms=20
    )
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["request_throughput"]
    path.write_text(json.dumps({**content, "request_rate": float("inf")}), encoding="utf-8")
    (result,) = told(loaded(clients=64), tmp_path).results
    assert result.values["ttft_p99_s"] == pytest.approx(1.8)
    assert not {"rate", "gpu_s_per_request"} & result.values.keys()


def test_a_script_measures_what_a_load_was_priced_at() -> None:
    commands = [
        [step.command for step in vllm_load("m", "t", workload(design, "h100"))]
        for design in (loaded(rate=2), loaded(clients=64), loaded(clients=16))
    ]
    rate, clients, batch = commands
    assert [*rate[1][-6:-2]] == ["--request-rate", "2", "--num-prompts", "600"]
    assert [*clients[1][-6:-2]] == ["--max-concurrency", "64", "--num-prompts", "512"]
    assert [one[-2:] for one in (rate[1], clients[1])] == [("--random-range-ratio", "0.2")] * 2
    assert len(batch) == 1  # the scenario's batch is the load


def test_other_sizes_are_named_with_those_that_were_priced(design: Design, tmp_path: Path) -> None:
    place = tmp_path / "results" / DIGEST
    outputs.vllm_serve(place, prompt=1024, generated=512, requests=16, ttft_ms=90, tpot_ms=20)
    outputs.llama_bench(place, [outputs.bench_row("a", 512, 0, 0, 0.1)], "json")
    outputs.trtllm_bench(place, prompt=6144, generated=512, requests=16, ttft_ms=900,
                         tpot_ms=19, tokens_per_s=800, gpus=2)  # fmt: skip
    found = told(design, tmp_path)
    assert found.results == ()
    assert len(found.remarks) == 3
    assert all("not told" in remark for remark in found.remarks)
    assert any("on 2 GPUs" in remark for remark in found.remarks)


def test_without_a_target_times_are_told_to_nobody(tmp_path: Path) -> None:
    place = tmp_path / "results" / DIGEST
    outputs.llama_bench(place, [outputs.bench_row("a", 512, 0, 0, 0.1)], "json")
    outputs.llama_perplexity(place, 7.0, 0.1, " 0.01 ± 0.001", base=6.9)
    found = folder_results(read_folder(tmp_path), KNOWN, None)
    assert found.results[0].values["quality_loss"] == 0.01
    assert "give --target" in found.remarks[0]


def test_scores_have_columns_and_the_reference_its_own(design: Design, tmp_path: Path) -> None:
    outputs.lm_eval(tmp_path / "results" / DIGEST, {"arc": {"acc": (0.6, 0.01)}})
    outputs.lm_eval(tmp_path / "results" / "reference", {"arc": {"acc": (0.7, 0.01)}})
    found = told(design, tmp_path)
    assert found.results[0].values == {"score.arc.acc": 0.6, "score.arc.acc_stderr": 0.01}
    assert found.reference["score.arc.acc"].value == 0.7


def test_everything_that_cannot_be_told_is_said_at_once(design: Design, tmp_path: Path) -> None:
    results = tmp_path / "results"
    outputs.lm_eval(results / "0123456789abcdee", {"arc": {"acc": (0.6, 0.01)}})
    outputs.lm_eval(results / DIGEST, {"arc": {"acc": (0.6, 0.01)}}, model=f"/x/{OTHER}")
    outputs.lm_eval(results / DIGEST / "again", {"arc": {"acc": (0.7, 0.01)}})
    outputs.vllm_latency(results / OTHER, "vllm-latency_batch16_input6384_output33.json", 1.0)
    with pytest.raises(RunError) as raised:
        told(design, tmp_path)
    text = str(raised.value)
    assert len(text.splitlines()) == 4
    assert f"did you mean '{DIGEST}'" in text
    assert f"was measured of {OTHER}, and lies in the folder of {DIGEST}" in text
    assert "says 0.7" in text
    assert "keep one of them" in text
    assert "measure that too: --output-len 1" in text
    with pytest.raises(RunError, match="--target h10: not a target of this run; did you mean"):
        workload(design, "h10")
