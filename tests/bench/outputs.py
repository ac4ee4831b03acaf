"""What scorers and benchmarks write, by the schemas of their sources.

* lm-evaluation-harness 0.4: `lm_eval/evaluator.py` (`simple_evaluate`), and
  `lm_eval/loggers/evaluation_tracker.py` (the file's name, `model_name`).
* vLLM: `vllm/benchmarks/serve.py`, `latency.py`, `throughput.py`.
* TensorRT-LLM: `tensorrt_llm/bench/dataclasses/reporting.py`, `get_statistics_dict`.
* llama.cpp: `tools/perplexity/perplexity.cpp` (`kl_divergence`, the final estimate) and
  `tools/llama-bench/llama-bench.cpp` (`get_fields`; its four printers).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Metrics = Mapping[str, Mapping[str, tuple[float, float | None]]]
"""Task -> metric -> value and standard error."""


def write(path: Path, text: str) -> Path:
    """A file in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def lm_eval(folder: Path, metrics: Metrics, model: str = "model") -> Path:
    """`results_<time>.json` under the model's sanitized name, as with `--output_path`."""
    results: dict[str, dict[str, object]] = {}
    for task, found in metrics.items():
        results[task] = {"alias": task, "sample_len": 62}
        for metric, (value, stderr) in found.items():
            results[task][f"{metric},none"] = value
            results[task][f"{metric}_stderr,none"] = "N/A" if stderr is None else stderr
    content = {
        "results": results,
        "group_subtasks": {task: [] for task in metrics},
        "configs": {task: {"task": task, "output_type": "multiple_choice"} for task in metrics},
        "versions": dict.fromkeys(metrics, 1.0),
        "n-shot": dict.fromkeys(metrics, 0),
        "higher_is_better": {
            task: {metric: "perplexity" not in metric for metric in found}
            for task, found in metrics.items()
        },
        "n-samples": {task: {"original": 62, "effective": 62} for task in metrics},
        "config": {"model": "local-completions", "model_args": f"model={model}", "limit": None},
        "git_hash": None,
        "date": 1.7e9,
        "model_source": "local-completions",
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        "total_evaluation_time_seconds": "12.5",
    }
    name = f"lm-eval/{model.replace('/', '__')}/results_2026-11-28T12-00-00.000000.json"
    return write(folder / name, json.dumps(content, indent=2))


def vllm_serve(
    folder: Path, *, prompt: int, generated: int, requests: int | None,
    ttft_ms: float, tpot_ms: float, model: str = "model", failed: int = 0,
    rate: float | None = None, name: str = "vllm-serve.json",
) -> Path:  # fmt: skip
    """`vllm bench serve --save-result`; `rate`: with --request-rate."""
    count = 8 * (requests or 8)
    duration = generated * tpot_ms / 1e3 * 8
    content = {
        "date": "20261128-120000", "endpoint_type": "openai", "backend": "openai", "label": None,
        "model_id": model, "tokenizer_id": model, "num_prompts": count,
        "request_rate": "inf" if rate is None else rate,
        "burstiness": 1.0, "max_concurrency": requests, "duration": duration,
        "completed": count - failed, "failed": failed,
        "total_input_tokens": prompt * (count - failed),
        "total_output_tokens": generated * (count - failed),
        "request_throughput": count / duration, "request_goodput": None,
        "output_throughput": count * generated / duration,
        "total_token_throughput": count * (prompt + generated) / duration,
        "mean_ttft_ms": ttft_ms, "median_ttft_ms": ttft_ms, "std_ttft_ms": 1.0,
        "p99_ttft_ms": 2 * ttft_ms, "mean_tpot_ms": tpot_ms, "median_tpot_ms": tpot_ms,
        "std_tpot_ms": 0.1, "p99_tpot_ms": 2 * tpot_ms, "mean_itl_ms": tpot_ms,
    }  # fmt: skip
    return write(folder / name, json.dumps(content))


def vllm_latency(folder: Path, name: str, seconds: float) -> Path:
    """`vllm bench latency --output-json`."""
    content = {
        "avg_latency": seconds, "std_latency": seconds / 100, "latencies": [seconds] * 30,
        "percentiles": {str(p): seconds for p in (10, 25, 50, 75, 90, 99)},
    }  # fmt: skip
    return write(folder / name, json.dumps(content, indent=4))


def vllm_throughput(folder: Path, *, prompt: int, generated: int, per_second: float) -> Path:
    """`vllm bench throughput --output-json`."""
    content = {
        "elapsed_time": 100 / per_second, "num_requests": 100,
        "total_num_tokens": 100 * (prompt + generated), "requests_per_second": per_second,
        "tokens_per_second": per_second * (prompt + generated),
    }  # fmt: skip
    name = f"vllm-throughput_input{prompt}_output{generated}.json"
    return write(folder / name, json.dumps(content, indent=4))


def trtllm_bench(
    folder: Path, *, prompt: float, generated: float, requests: float, ttft_ms: float,
    tpot_ms: float, tokens_per_s: float, gpus: int = 1, model: str = "model",
) -> Path:  # fmt: skip
    """`trtllm-bench throughput --streaming --report_json`."""
    content = {
        "engine": {"model": model, "model_path": f"/models/{model}", "engine_dir": "None",
                   "version": "1.2.0", "backend": "Pytorch", "dtype": "bfloat16",
                   "kv_cache_dtype": None, "quantization": "FP8"},
        "machine": {"name": "NVIDIA H100", "memory.total": 79.1, "clocks.mem": 2.6},
        "world_info": {"tp_size": gpus, "pp_size": 1, "ep_size": 1, "world_size": gpus,
                       "max_batch_size": 64, "max_num_tokens": 8192,
                       "scheduling_policy": "GUARANTEED_NO_EVICT", "kv_cache_percentage": 0.9,
                       "issue_rate": 1e10},
        "request_info": {"num_requests": 64, "avg_num_concurrent_requests": requests,
                         "avg_input_length": prompt, "avg_output_length": generated},
        "performance": {"total_latency_ms": 1e4, "avg_request_latency_ms": 1e3,
                        "request_throughput_req_s": tokens_per_s / generated,
                        "system_output_throughput_tok_s": tokens_per_s,
                        "system_total_throughput_tok_s": 2 * tokens_per_s},
        "streaming_metrics": {"token_output_speed_tok_s": 1e3 / tpot_ms,
                              "avg_ttft_ms": ttft_ms, "avg_tpot_ms": tpot_ms},
        "dataset": {"isl": {}, "osl": {}},
    }  # fmt: skip
    return write(folder / "trtllm-bench.json", json.dumps(content, indent=4))


def llama_perplexity(
    folder: Path, ppl: float, error: float, kld: str = "", base: float = 0
) -> Path:
    """The text of `llama-perplexity`; with `kld` ("mean ± error") of `--kl-divergence`."""
    text = "build: 11549 (abc1234) with cc for x86_64-linux-gnu\nsystem_info: n_threads = 2\n"
    if not kld:
        text += (
            "perplexity: calculating perplexity over 4 chunks, n_ctx=512, batch_size=2048, "
            f"n_seq=4\n[1]{ppl:.4f},[2]{ppl:.4f},\n"
            f"Final estimate: PPL = {ppl:.4f} +/- {error:.5f}\n"
        )
    else:
        text += (
            "kl_divergence: computing over 4 chunks, n_ctx=512, batch_size=2048, n_seq=4\n"
            "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
            "              Δp RMS            Same top p\n"
            "   1       5.4728 ±    0.0502       0.00946 ±    0.00069       0.01000 ±    0.00010"
            "     3.361 ±  0.035 %    95.000 ±  0.089 %\n\n"
            "====== Perplexity statistics ======\n"
            f"Mean PPL(Q)                   : {ppl:10.6f} ± {error:10.6f}\n"
            f"Mean PPL(base)                : {base:10.6f} ± {error:10.6f}\n"
            "Cor(ln(PPL(Q)), ln(PPL(base))):  99.12%\n\n"
            "====== KL divergence statistics ======\n"
            f"Mean    KLD: {kld}\nMaximum KLD:   1.234567\n99.9%   KLD:   0.456789\n"
        )
    return write(folder / "llama-perplexity.txt", text)


FIELDS = (
    "build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename",
    "model_type", "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k",
    "type_v", "n_gpu_layers", "flash_attn", "n_prompt", "n_gen", "n_depth", "test_time",
    "avg_ns", "stddev_ns", "avg_ts", "stddev_ts",
)  # fmt: skip


def bench_row(
    model: str, prompt: int, generated: int, depth: int, seconds: float
) -> dict[str, object]:
    """One test of llama-bench."""
    values = (
        "abc1234", 11549, "CPU", "", "CPU", model, "llama 1B Q4_K - Medium", 807694464, 1235814432,
        2048, 512, 2, "f16", "f16", 0, 0, prompt, generated, depth, "2026-11-28T12:00:00Z",
        round(seconds * 1e9), round(seconds * 1e7), (prompt + generated) / seconds, 1.0,
    )  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def llama_bench(folder: Path, rows: Sequence[Mapping[str, object]], form: str) -> Path:
    """`llama-bench -o json|jsonl|csv|md`."""
    if form == "json":
        full = [
            {**row, "samples_ns": [row["avg_ns"]], "samples_ts": [row["avg_ts"]]} for row in rows
        ]
        text = json.dumps(full, indent=2)
    elif form == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif form == "csv":
        stream = io.StringIO()
        table = csv.DictWriter(stream, FIELDS, quoting=csv.QUOTE_ALL, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        text = stream.getvalue()
    else:
        text = "| model | size | params | backend | threads | test | t/s |\n"
        text += "| ----- | ---: | -----: | ------- | ------: | ---: | --: |\n"
        for row in rows:
            test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
            test += f" @ d{row['n_depth']}" if row["n_depth"] else ""
            speed = f"{row['avg_ts']:.8f} ± {row['stddev_ts']:.2f}"
            text += f"| llama 1B | 770.28 MiB | 1.24 B | CPU | 2 | {test} | {speed} |\n"
        text += "\nbuild: abc1234 (11549)\n"
    return write(folder / f"llama-bench.{form}", text)
