"""Results of `trtllm-bench`: what `throughput` and `latency` write with `--report_json`.

The schema is that of NVIDIA/TensorRT-LLM, `tensorrt_llm/bench/dataclasses/reporting.py`,
`ReportUtility.get_statistics_dict`; `streaming_metrics` are there with `--streaming`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.bench.reading import Load, Reading, milliseconds, positive
from dse.errors import RunError

TOOL = "trtllm-bench"


def is_mine(content: object) -> bool:
    """Whether a JSON value is such a file."""
    return isinstance(content, dict) and {"performance", "request_info"} <= content.keys()


def read(content: Mapping[str, object], file: Path) -> Reading:
    """Throughput, and with `--streaming` the times of tokens.

    Raises:
        RunError: a figure that is none.
    """
    request, performance = (
        _part(content, "request_info", file),
        _part(content, "performance", file),
    )
    streaming = _part(content, "streaming_metrics", file, optional=True)
    world, engine = (_part(content, key, file, optional=True) for key in ("world_info", "engine"))
    where = f"{file}: request_info"
    load = Load(
        prompt=positive(request, "avg_input_length", where),
        generated=positive(request, "avg_output_length", where),
        requests=max(1, round(positive(request, "avg_num_concurrent_requests", where))),
        ttft_s=milliseconds(streaming, "avg_ttft_ms", f"{file}: streaming_metrics"),
        tpot_s=milliseconds(streaming, "avg_tpot_ms", f"{file}: streaming_metrics"),
        tokens_per_s=positive(
            performance, "system_output_throughput_tok_s", f"{file}: performance"
        ),
        gpus=int(positive(world, "world_size", f"{file}: world_info")) if world else None,
    )
    model = f"{engine.get('model', '')} {engine.get('model_path', '')}"
    return Reading(file=file, tool=TOOL, model=model.strip(), figures=(load,))


def _part(
    content: Mapping[str, object], key: str, file: Path, *, optional: bool = False
) -> Mapping[str, object]:
    part = content.get(key)
    if isinstance(part, dict):
        return part
    if optional and part is None:
        return {}
    raise RunError(f"{file}: {key}: expected an object, got {type(part).__name__}")
