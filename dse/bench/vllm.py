"""Results of `vllm bench serve`, `vllm bench latency` and `vllm bench throughput`.

The schemas are those of vllm-project/vllm, `vllm/benchmarks/serve.py` (`--save-result`),
`latency.py` and `throughput.py` (`--output-json`). The last two do not write the sizes that they
measured at: the file's name says them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from dse.bench.reading import Generation, Load, Reading, milliseconds, number, positive
from dse.errors import RunError

SERVE, LATENCY, THROUGHPUT = (f"vllm bench {name}" for name in ("serve", "latency", "throughput"))
SIZES = re.compile(r"(?:_batch(?P<batch>\d+))?_input(?P<input>\d+)_output(?P<output>\d+)")


def sized(tool: str, *, prompt: int, generated: int, batch: int | None = None) -> str:
    """The name of a result file that says its sizes."""
    requests = "" if batch is None else f"_batch{batch}"
    return f"{tool.replace(' bench ', '-')}{requests}_input{prompt}_output{generated}.json"


def is_serve(content: object) -> bool:
    """Whether a JSON value is a result of `serve`."""
    return isinstance(content, dict) and {"completed", "output_throughput"} <= content.keys()


def is_latency(content: object) -> bool:
    """Whether a JSON value is a result of `latency`."""
    return isinstance(content, dict) and {"avg_latency", "latencies"} <= content.keys()


def is_throughput(content: object) -> bool:
    """Whether a JSON value is a result of `throughput`."""
    return isinstance(content, dict) and {"elapsed_time", "requests_per_second"} <= content.keys()


def read_serve(content: Mapping[str, object], file: Path) -> Reading:
    """Times to the first and per further token under a load.

    Raises:
        RunError: a figure that is none, or requests that failed.
    """
    where = str(file)
    done = positive(content, "completed", where)
    failed = number(content, "failed", where) if "failed" in content else 0
    if failed:
        raise RunError(f"{file}: {failed:g} requests failed, {done:g} did not; measure it again")
    most = content.get("max_concurrency")
    endless = content.get("request_rate") in ("inf", math.inf, None)
    told = content.get("request_throughput") is not None
    load = Load(
        prompt=positive(content, "total_input_tokens", where) / done,
        generated=positive(content, "total_output_tokens", where) / done,
        requests=None if most is None else round(positive(content, "max_concurrency", where)),
        rate=None if endless else positive(content, "request_rate", where),
        answered=positive(content, "request_throughput", where) if told else None,
        ttft_s=milliseconds(content, "mean_ttft_ms", where),
        ttft_p50_s=milliseconds(content, "median_ttft_ms", where),
        ttft_p99_s=milliseconds(content, "p99_ttft_ms", where),
        tpot_s=milliseconds(content, "mean_tpot_ms", where),
        tpot_p99_s=milliseconds(content, "p99_tpot_ms", where),
        tokens_per_s=positive(content, "output_throughput", where),
    )
    model = str(content.get("model_id", ""))
    return Reading(file=file, tool=SERVE, model=model, figures=(load,))


def read_latency(content: Mapping[str, object], file: Path) -> Reading:
    """Seconds of a batch.

    Raises:
        RunError: a figure that is none, or a name without sizes.
    """
    prompt, generated, batch = _sizes(file, LATENCY)
    if batch is None:
        raise RunError(_nameless(file, LATENCY))
    found = Generation(
        requests=batch,
        prompt=prompt,
        generated=generated,
        seconds=positive(content, "avg_latency", str(file)),
    )
    return Reading(file=file, tool=LATENCY, model="", figures=(found,))


def read_throughput(content: Mapping[str, object], file: Path) -> Reading:
    """Generated tokens a second with as many requests as fit.

    Raises:
        RunError: a figure that is none, or a name without sizes.
    """
    prompt, generated, _ = _sizes(file, THROUGHPUT)
    rate = positive(content, "requests_per_second", str(file))
    load = Load(prompt=prompt, generated=generated, requests=None, tokens_per_s=rate * generated)
    return Reading(file=file, tool=THROUGHPUT, model="", figures=(load,))


def _sizes(file: Path, tool: str) -> tuple[int, int, int | None]:
    found = SIZES.search(file.stem)
    if found is None:
        raise RunError(_nameless(file, tool))
    batch = found["batch"]
    return int(found["input"]), int(found["output"]), None if batch is None else int(batch)


def _nameless(file: Path, tool: str) -> str:
    batch = 1 if tool == LATENCY else None
    example = sized(tool, prompt=512, generated=1, batch=batch)
    return (
        f"{file}: `{tool}` does not write the sizes that it measured at; say them in the file's "
        f"name, e.g. {example}"
    )
