"""Two more dense models under three runtimes on H100s, at 8 to 224 requests at a time.

Usage: python -m studies.served_models.dense --aiconfigurator DIR

Neither was looked at while queues were written. Graphs come from configurations, without weights.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from dse.evaluate.deployment import Deployment
from dse.evaluate.phases import exchange_of, fuller_prompts, growing_steps, phase_work
from dse.evaluate.request import Request
from hwmodels.devices.load import load_device
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import PhaseWork
from hwmodels.tables.queueing import Engine, Traffic, simulate
from studies.served_models.run import RUNTIMES, SCHEMES, Model, graph_of

RESULTS = Path(__file__).parent / "results" / "dense.csv"
Calls = tuple[PhaseWork, ...]
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-32B": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120,
        "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    },
}  # fmt: skip
SCHEME = {**SCHEMES, "bf16": "bf16"}
GROUP = ["model_path", "backend", "precision"]
ENGINE = [*GROUP, "tp_size", "isl"]
SETTING = [*ENGINE, "osl"]
MEASURED = ["silicon_ttft_ms", "silicon_tpot_ms"]
ANSWER, LEAST = 256, 8
"""Tokens of the answer in whose middle a decoding step is priced, and the fewest requests."""
SENT = 10
"""Requests of a client: the measurements do not say; lengths are taken to be equal."""


def measurements(folder: Path) -> pd.DataFrame:
    """Medians over repeated measurements; a precision that is not told is the checkpoint's."""
    table = pd.read_csv(folder / "served_models.csv.gz")
    chosen = table[
        table.model_path.isin(CONFIGS)
        & (table["mode"] == "agg")
        & (table.pp_size == 1)
        & (table.system == "h100_sxm")
    ]
    chosen = chosen.assign(precision=chosen.precision.fillna("bf16"))
    return chosen.groupby([*SETTING, "batch_size"])[MEASURED].median().reset_index()


@cache
def phases(model: Model, prompt: int, gpus: int) -> tuple[list[PhaseWork], Calls, Calls]:
    """Prefill and a step in the middle of an answer; steps of more requests; more prompts."""
    request = Request(prompt=prompt, generate=ANSWER, batch=LEAST)
    dims = {
        "prefill": request.prefill_dims(model.graph, {}),
        "decode": request.decode_dims(model.graph, {}),
    }
    shares = {"prefill": float(request.batch), "decode": float(request.generate)}
    calls = [
        PhaseWork(
            name=name,
            share=shares[name],
            work=phase_work(model.analysis, sizes, gpus, answers=True),
        )
        for name, sizes in dims.items()
    ]
    steps = growing_steps(model.analysis, dims["decode"], gpus)
    exchange = exchange_of(calls)
    assert exchange is not None
    return calls, steps, fuller_prompts(model.analysis, dims["prefill"], exchange.prompt, gpus)


def engine_of(model: Model, backend: str, precision: str, gpus: int, prompt: int) -> Engine:
    """The model on a group of H100s."""
    calls, steps, prompts = phases(model, prompt, gpus)
    exchange = exchange_of(calls)
    assert exchange is not None
    deployment = Deployment(
        device=load_device("h100-sxm"), runtime=load_runtime(RUNTIMES[backend]), gpus=gpus
    )
    choices = model.choices(SCHEME[precision])
    table = deployment.table(calls, choices)
    served = deployment.served(table, exchange, steps, choices, prompts=prompts)
    engine = served.engine({}, deployment.runtime.batching)
    assert engine is not None
    return engine


def predicted(engine: Engine, prompt: int, answer: int, clients: int) -> dict[str, float]:
    """Both times, alone and in the queue."""
    traffic = Traffic(
        prompt=prompt, generate=answer, clients=clients, spread=0.0, count=SENT * clients,
        start=0.0,
    )  # fmt: skip
    found = simulate(engine, traffic)
    return {
        "max_batch": engine.most,
        "ttft_ms": 1e3 * engine.read_s[0],
        "queued_ttft_ms": 1e3 * found.ttft_s.mean(),
        "queued_tpot_ms": 1e3 * found.tpot_s.mean(),
    }


def main() -> None:
    """Print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    rows = measurements(parser.parse_args().aiconfigurator)
    models = {name: Model(graph=graph_of(config)) for name, config in CONFIGS.items()}
    found = []
    for key, group in rows.groupby(ENGINE):
        name, backend, precision = map(str, key[:3])
        gpus, prompt = (int(float(str(size))) for size in key[3:])
        engine = engine_of(models[name], backend, precision, gpus, prompt)
        print(*key, flush=True)
        for row in group.to_dict("records"):
            numbers = predicted(engine, prompt, int(row["osl"]), int(row["batch_size"]))
            found.append({str(name): value for name, value in row.items()} | numbers)
    table = pd.DataFrame(found)
    table = table[table.max_batch >= table.batch_size]
    table["ttft_error"] = table.ttft_ms / table.silicon_ttft_ms - 1
    table["queued_ttft_error"] = table.queued_ttft_ms / table.silicon_ttft_ms - 1
    table["queued_tpot_error"] = table.queued_tpot_ms / table.silicon_tpot_ms - 1
    table.round(4).to_csv(RESULTS, index=False)
    errors = ["ttft_error", "queued_ttft_error", "queued_tpot_error"]
    by = table.groupby(GROUP)[errors]
    print(by.median().round(3).to_string())
    print(
        table.assign(**{name: table[name].abs() for name in errors})
        .groupby(GROUP)[errors]
        .median()
        .round(3)
        .to_string()
    )
    print(table.groupby("batch_size")[errors].median().round(3).to_string())
    print(table[["silicon_ttft_ms", "queued_ttft_ms", "ttft_ms"]].corr("spearman").round(3))
    print(table[["silicon_tpot_ms", "queued_tpot_ms"]].corr("spearman").round(3), len(table))


if __name__ == "__main__":
    main()
