"""Results of tools are read as they are; what is torn or no number is refused by its file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dse.bench.folder import read_file, read_folder
from dse.bench.reading import Call, Divergence, Generation, Load, Score
from dse.errors import RunError
from tests.bench import outputs

ROWS = (
    outputs.bench_row("a.gguf", 512, 0, 0, 0.25),
    outputs.bench_row("a.gguf", 0, 128, 384, 1.28),
)


def test_scores_of_lm_eval_have_names_errors_and_a_direction(tmp_path: Path) -> None:
    metrics: outputs.Metrics = {
        "arc_easy": {"acc": (0.71, 0.01)},
        "wikitext": {"word_perplexity": (12.5, None)},
    }
    reading = read_file(outputs.lm_eval(tmp_path, metrics, model="abc"))
    assert reading.figures == (
        Score(name="arc_easy.acc", value=0.71, stderr=0.01, higher_is_better=True),
        Score(name="wikitext.word_perplexity", value=12.5, stderr=None, higher_is_better=False),
    )
    assert "abc" in reading.model


def test_loads_batches_and_throughputs_of_vllm(tmp_path: Path) -> None:
    served = outputs.vllm_serve(
        tmp_path, prompt=1024, generated=128, requests=4, ttft_ms=50, tpot_ms=10, model="m"
    )
    (load,) = read_file(served).figures
    assert isinstance(load, Load)
    assert (load.prompt, load.generated, load.requests) == (1024, 128, 4)
    assert (load.ttft_s, load.tpot_s) == (0.05, 0.01)
    batch = outputs.vllm_latency(tmp_path, "vllm-latency_batch2_input512_output33.json", 0.4)
    expected = Generation(requests=2, prompt=512, generated=33, seconds=0.4)
    assert read_file(batch).figures == (expected,)
    rate = outputs.vllm_throughput(tmp_path, prompt=512, generated=128, per_second=3)
    (most,) = read_file(rate).figures
    assert isinstance(most, Load)
    assert (most.requests, most.tokens_per_s) == (None, 384)


def test_reports_of_trtllm_bench(tmp_path: Path) -> None:
    path = outputs.trtllm_bench(
        tmp_path, prompt=1000, generated=100, requests=3.97, ttft_ms=40, tpot_ms=8,
        tokens_per_s=450, gpus=2,
    )  # fmt: skip
    (load,) = read_file(path).figures
    assert load == Load(prompt=1000, generated=100, requests=4, ttft_s=0.04, tpot_s=0.008,
                        tokens_per_s=450, gpus=2)  # fmt: skip


def test_divergence_and_perplexity_of_llama_perplexity(tmp_path: Path) -> None:
    plain = read_file(outputs.llama_perplexity(tmp_path, 7.25, 0.05))
    name = "text.perplexity"
    assert plain.figures == (Score(name=name, value=7.25, stderr=0.05, higher_is_better=False),)
    text = outputs.llama_perplexity(tmp_path, 7.5, 0.06, "  0.012345 ±   0.000123", base=7.25)
    divergence, score = read_file(text).figures
    assert divergence == Divergence(loss=0.012345, stderr=0.000123)
    assert score == Score(name=name, value=7.5, stderr=0.06, higher_is_better=False)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "md"])
def test_every_form_of_llama_bench_says_the_same(tmp_path: Path, form: str) -> None:
    prompt, step = read_file(outputs.llama_bench(tmp_path, ROWS, form)).figures
    assert isinstance(prompt, Call)
    assert isinstance(step, Call)
    assert (prompt.tokens, prompt.context) == (512, 512)
    assert prompt.seconds == pytest.approx(0.25, rel=1e-6)
    assert (step.tokens, step.context) == (1, 384 + 64.5)
    assert step.seconds == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", '{"results": {"arc": {"acc,none": 0.7', "is torn, or no JSON"),
        ("a.json", '{"results": {"arc": {"acc,none": NaN}}}', "results.arc: acc,none: .*nan"),
        ("a.json", '{"results": {"arc": {"alias": "arc"}}}', "no task has a score"),
        ("a.json", '{"avg_latency": 1.0, "latencies": [1.0]}', "_batch1_input512_output1.json"),
        ("v_batch1_input8_output1.json", '{"avg_latency": -1, "latencies": []}', "avg_latency"),
        ("a.json", '{"performance": {}, "request_info": {}}', "avg_input_length: .*nothing"),
        ("a.json", '{"completed": 3, "failed": 1, "output_throughput": 2}', "1 requests failed"),
        ("a.json", json.dumps([{**ROWS[0], "avg_ns": math.inf}]), "row 1: avg_ns: .*inf"),
        ("a.json", json.dumps([{**ROWS[0], "n_gen": 3}]), "expected one of them"),
        ("a.json", json.dumps([ROWS[0], {**ROWS[1], "model_filename": "b"}]), "several models"),
        ("a.json", '{"else": 1}', "is not what any of lm-eval, vllm bench"),
        ("a.txt", "perplexity: calculating perplexity over 4 chunks\n[1]7.1,", "has not ended"),
        ("a.txt", "Mean    KLD:   nan ±   nan\nKL divergence statistics", "Mean KLD: .*nan"),
        ("a.md", "| model | test | t/s |\n|-|-|-|\n| a | pp512 | nan |", "avg_ns"),
        ("a.txt", "hello", "is not what any of"),
    ],
)
def test_what_is_no_result_is_refused_by_its_file(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    path = outputs.write(tmp_path / name, content)
    with pytest.raises(RunError, match=says) as raised:
        read_file(path)
    assert str(raised.value).startswith(str(path))


def test_a_folder_is_read_by_model_and_its_errors_come_together(tmp_path: Path) -> None:
    place = tmp_path / "results"
    outputs.llama_bench(place / "0123456789abcdef", ROWS, "json")
    outputs.write(place / "0123456789abcdef" / "samples_arc_2026.jsonl", "{}")
    outputs.write(place / "0123456789abcdef" / "lm-eval.partial" / "results_1.json", "{")
    (measured,) = read_folder(tmp_path)
    assert (measured.name, len(measured.readings)) == ("0123456789abcdef", 1)
    outputs.write(place / "stray.json", "{}")
    outputs.write(place / "0123456789abcdef" / "torn.json", "{")
    with pytest.raises(RunError) as raised:
        read_folder(tmp_path)
    stray, torn = str(raised.value).splitlines()
    assert "stray.json: belongs to no model" in stray
    assert "torn.json: is torn" in torn


def test_a_folder_without_results_says_where_they_go(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results; run the script"):
        read_folder(tmp_path)
