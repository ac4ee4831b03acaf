"""Commands that score and time a model: one result file a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dse.bench import vllm
from dse.bench.folder import REFERENCE, RESULTS
from dse.explore.workload import Workload
from hwmodels.tables.queueing import Traffic
from hwmodels.tables.serving import Call

HERE = "{}"
"""Stands in a command for the file to write."""
STEPS = 33
"""Tokens that are generated to time a decoding step: the first belongs to the prompt."""
PROMPTS = 8
"""Requests of a load, as a multiple of those at once."""
LEAST, SECONDS = 400, 300
"""Requests that arrive at random: so many at least, or as many as come in so many seconds; a 99th
percentile is of the four longest then."""
LOGITS = f"logs/{REFERENCE}.kld"
"""The unquantized model's logits, which llama-perplexity compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command, and the result that it leaves."""

    file: str
    """Relative to the script."""
    command: tuple[str, ...]
    """Words of the shell; `{}` is the file, `$NAME` a setting of the script."""
    prints: Literal["", "output", "everything"] = ""
    """The result is what it prints: its output, or its log with it; empty: a file."""


def result(model: str, name: str) -> str:
    """The file of a result of a model."""
    return f"{RESULTS}/{model}/{name}"


def server_score(model: str, tokenizer: str) -> Step:
    """lm-eval against the server that is running."""
    arguments = (
        f"model={model},base_url=http://localhost:$PORT/v1/completions,tokenizer={tokenizer},"
        "num_concurrent=8,max_retries=3,tokenized_requests=False"
    )
    return Step(
        file=result(model, "lm-eval"),
        command=("lm_eval", "--model", "local-completions", "--model_args", arguments,
                 "--tasks", "$TASKS", "--output_path", HERE),
    )  # fmt: skip


def vllm_load(model: str, tokenizer: str, work: Workload) -> Iterator[Step]:
    """`vllm bench serve` with the run's batch, and under its load of requests that wait."""
    demand, queue = work.demand, work.target.queue
    if demand is None:
        return
    command = (
        "vllm", "bench", "serve", "--base-url", "http://localhost:$PORT", "--model", model,
        "--tokenizer", tokenizer, "--dataset-name", "random",
        "--random-input-len", str(demand.prefill.tokens),
        "--random-output-len", str(round(demand.generated)), "--ignore-eos",
        "--save-result", "--result-filename", HERE,
    )  # fmt: skip
    requests = demand.decode.requests
    held = ("--max-concurrency", str(requests), "--num-prompts", str(PROMPTS * requests))
    yield Step(file=result(model, "vllm-serve.json"), command=(*command, *held))
    if queue is None or queue.bounds or queue.traffic.clients == requests:
        return  # with bounds, each assignment has a load of its own
    yield Step(
        file=result(model, "vllm-serve-load.json"),
        command=(*command, *_offered(queue.traffic)),
    )


def _offered(traffic: Traffic) -> tuple[str, ...]:
    """The requests of a load, whose lengths spread as the simulated ones do."""
    spread = ("--random-range-ratio", f"{traffic.spread:g}")
    if traffic.rate is not None:
        count = max(LEAST, round(traffic.rate * SECONDS))
        return ("--request-rate", f"{traffic.rate:g}", "--num-prompts", str(count), *spread)
    clients = traffic.clients or 1
    held = ("--max-concurrency", str(clients), "--num-prompts", str(PROMPTS * clients))
    return (*held, *spread)


def vllm_calls(model: str, path: str, options: Sequence[str], work: Workload) -> Iterator[Step]:
    """`vllm bench latency` of every phase: prompts, and steps as the rest of longer answers."""
    sizes = dict.fromkeys(size for call in work.calls.values() for size in _batches(call))
    for batch, prompt, generated in sizes:
        name = vllm.sized(vllm.LATENCY, prompt=prompt, generated=generated, batch=batch)
        yield Step(
            file=result(model, name),
            command=(
                "vllm", "bench", "latency", "--model", path, *options, "--batch-size", str(batch),
                "--input-len", str(prompt), "--output-len", str(generated), "--output-json", HERE,
            ),
        )  # fmt: skip


def _batches(call: Call) -> Iterator[tuple[int, int, int]]:
    """Batch, prompt and generated tokens from which a call's time can be told."""
    if call.tokens > 1:
        yield call.requests, call.tokens, 1
        return
    prompt = max(1, call.context - (STEPS + 1) // 2)
    yield from ((call.requests, prompt, 1), (call.requests, prompt, STEPS))


def tensorrt_load(model: str, path: str, work: Workload) -> Iterator[Step]:
    """`trtllm-bench throughput` under the run's load, with a data set of its own making."""
    demand = work.demand
    if demand is None:
        return
    requests, data = demand.decode.requests, f"logs/{model}.dataset.txt"
    lengths = (
        "--input-mean", str(demand.prefill.tokens), "--input-stdev", "0",
        "--output-mean", str(round(demand.generated)), "--output-stdev", "0",
        "--num-requests", str(PROMPTS * requests),
    )  # fmt: skip
    opened = ("trtllm-bench", "--model", model, "--model_path", path)
    made = (*opened, "prepare-dataset", "--output", HERE, "token-norm-dist", *lengths)
    yield Step(file=data, command=made)
    yield Step(
        file=result(model, "trtllm-bench.json"),
        command=(*opened, "throughput", "--dataset", data, "--concurrency", str(requests),
                 "--streaming", "--report_json", HERE),
    )  # fmt: skip


def llama_reference(path: str) -> Iterator[Step]:
    """The unquantized model's logits and perplexity on the text."""
    yield Step(
        file=result(REFERENCE, "llama-perplexity.txt"),
        command=("llama-perplexity", "-m", path, "-f", "$TEXT", "--kl-divergence-base", LOGITS),
        prints="everything",
    )


def llama_score(model: str, path: str) -> Step:
    """The divergence from those logits."""
    return Step(
        file=result(model, "llama-perplexity.txt"),
        command=("llama-perplexity", "-m", path, "--kl-divergence-base", LOGITS,
                 "--kl-divergence"),
        prints="everything",
    )  # fmt: skip


def llama_calls(model: str, path: str, work: Workload) -> Iterator[Step]:
    """`llama-bench` of every phase of one request; it has no batches."""
    for phase, call in work.calls.items():
        if call.requests != 1:
            continue
        prompt, generated = (call.tokens, 0) if call.tokens > 1 else (0, STEPS - 1)
        depth = max(0, call.context - (prompt or STEPS // 2))
        yield Step(
            file=result(model, f"llama-bench-{phase}.json"),
            command=("llama-bench", "-m", path, "-p", str(prompt), "-n", str(generated),
                     "-d", str(depth), "-o", "json"),
            prints="output",
        )  # fmt: skip
