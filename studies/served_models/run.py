"""Served Llama-3.1-70B, predicted against measured: TTFT alone and in a queue, TPOT, memory.

Usage: python -m studies.served_models.run --aiconfigurator DIR

The graph comes from the model's configuration, without its weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dse.evaluate.deployment import Deployment
from dse.evaluate.phases import exchange_of, fuller_prompts, growing_steps, phase_work
from dse.evaluate.request import Request
from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis
from dse.imports.folder import open_folder
from dse.space.uniform import uniform_assignment
from hwmodels.devices.load import load_device
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import Choices, PhaseWork
from hwmodels.tables.queueing import Served, Traffic, simulate
from hwmodels.tables.served import ServedTable
from hwmodels.work.role import ROLES

FOLDER = Path(__file__).parent
MODEL = "meta-llama/Llama-3.1-70B"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}  # fmt: skip
DEVICES = {"h100_sxm": "h100-sxm", "b200_sxm": "b200-sxm"}
SCHEMES = {"fp8": "w8a8_fp8", "fp4": "w4a4_nvfp4"}
RUNTIMES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt-llm"}
SETTING = ["system", "backend", "precision", "tp_size", "isl", "osl"]
LOADS = (4, 16, 64)
"""Requests at a time that are compared: the least, and those at which steps are priced."""
ANSWER = 1024
SENT = 10
"""Requests of a client, all clients beginning at once, as the measurements were taken
(SemiAnalysisAI/InferenceX, `--num-prompts $((CONC * 10))`, `--request-rate inf`)."""
LONGEST = 1.0
SHORTEST = 0.8
"""Lengths are drawn evenly between these shares of the nominal ones (`RANDOM_RANGE_RATIO`)."""
SUMMARIES = {"mape": lambda e: e.apply(lambda x: x.abs().mean()), "median": lambda e: e.median()}


def measurements(folder: Path) -> pd.DataFrame:
    """Medians over repeated measurements of settings without pipelines."""
    table = pd.read_csv(folder / "served_models.csv.gz")
    chosen = table[(table.model_path == MODEL) & (table["mode"] == "agg") & (table.pp_size == 1)]
    chosen = chosen[(chosen.osl == ANSWER) & chosen.batch_size.isin(LOADS)]
    columns = ["silicon_ttft_ms", "silicon_tpot_ms"]
    return chosen.groupby([*SETTING, "batch_size"])[columns].median().reset_index()


@dataclass(frozen=True, kw_only=True)
class Model:
    """The graph, its regions and what its work is for one of several GPUs."""

    graph: Graph

    def __hash__(self) -> int:
        return id(self)

    @cached_property
    def analysis(self) -> Analysis:
        """The findings in the graph."""
        return Analysis(self.graph)

    @cache  # noqa: B019 (one model, for the whole run)
    def phases(
        self, prompt: int, gpus: int
    ) -> tuple[tuple[PhaseWork, ...], tuple[PhaseWork, ...], tuple[PhaseWork, ...]]:
        """Prefill of one prompt and a step at the least load; steps at the others."""
        request = Request(prompt=prompt, generate=ANSWER, batch=LOADS[0])
        dims = {
            "prefill": request.prefill_dims(self.graph, {}),
            "decode": request.decode_dims(self.graph, {}),
        }
        shares = {"prefill": float(LOADS[0]), "decode": float(ANSWER)}
        calls = tuple(
            PhaseWork(
                name=name,
                share=shares[name],
                work=phase_work(self.analysis, sizes, gpus, answers=True),
            )
            for name, sizes in dims.items()
        )
        steps = growing_steps(self.analysis, dims["decode"], gpus)
        exchange = exchange_of(calls)
        assert exchange is not None
        prompts = fuller_prompts(self.analysis, dims["prefill"], exchange.prompt, gpus)
        return calls, steps, prompts

    def choices(self, scheme: str) -> Choices:
        """The scheme's operands by region."""
        given = uniform_assignment(self.analysis.regions, scheme).as_dict()
        return {
            region.name: (
                {
                    ROLES[s.role].operands[s.pass_]: given[s.key]
                    for s in region.sites
                    if s.key in given
                },
            )
            for region in self.analysis.regions
            if any(site.key in given for site in region.sites)
        }


def predicted(model: Model, setting: pd.Series) -> pd.DataFrame:
    """TTFT, TPOT at every load, and the batch that fits; the cache is in 16 bits."""
    gpus = int(setting.tp_size)
    calls, steps, prompts = model.phases(int(setting.isl), gpus)
    deployment = Deployment(
        device=load_device(DEVICES[setting.system]),
        runtime=load_runtime(RUNTIMES[setting.backend]),
        gpus=gpus,
    )
    choices = model.choices(SCHEMES[setting.precision])
    exchange = exchange_of(calls)
    if exchange is None:
        raise ValueError("the phases are a prefill and a decoding step")
    table = deployment.table(calls, choices)
    served = deployment.served(table, exchange, steps, choices, prompts=prompts)
    numbers = served.total({})
    assert served.steps is not None
    latencies = dict(served.steps.total({}).parts)
    queues = [queued(served, deployment, int(setting.isl), clients) for clients in LOADS]
    return pd.DataFrame(
        {
            **setting.to_dict(),
            "batch_size": LOADS,
            "ttft_ms": 1e3 * numbers["ttft_s"],
            "step_ms": [1e3 * latencies[str(load_)].latency_s for load_ in LOADS],
            "max_batch": numbers["max_batch"],
            "queued_ttft_ms": [1e3 * one.ttft_s.mean() for one in queues],
            "queued_tpot_ms": [1e3 * one.tpot_s.mean() for one in queues],
        }
    )


def queued(served: ServedTable, deployment: Deployment, prompt: int, clients: int) -> Served:
    """The same requests as were measured, simulated to the last of them."""
    engine = served.engine({}, deployment.runtime.batching)
    assert engine is not None
    mean = (LONGEST + SHORTEST) / 2
    traffic = Traffic(
        prompt=round(mean * prompt),
        generate=round(mean * ANSWER),
        clients=clients,
        spread=(LONGEST - mean) / mean,
        count=SENT * clients,
        start=0.0,
    )
    return simulate(engine, traffic)


def graph_of(config: Mapping[str, Any]) -> Graph:
    """The serving form of a model, from its configuration alone."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text(json.dumps(config))
        return open_folder(Path(name), served=True)


def main() -> None:
    """Print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    rows, model = measurements(arguments.aiconfigurator), Model(graph=graph_of(CONFIG))
    settings = rows[SETTING].drop_duplicates()
    found = pd.concat([predicted(model, setting) for _, setting in settings.iterrows()])
    table = rows.merge(found, on=[*SETTING, "batch_size"])
    # While a request decodes, every other one is replaced once: their prompts take turns with it.
    table["tpot_ms"] = table.step_ms + table.batch_size * table.ttft_ms / table.osl
    table["tpot_error"] = table.tpot_ms / table.silicon_tpot_ms - 1
    table["step_error"] = table.step_ms / table.silicon_tpot_ms - 1
    table["ttft_error"] = table.ttft_ms / table.silicon_ttft_ms - 1
    table["queued_ttft_error"] = table.queued_ttft_ms / table.silicon_ttft_ms - 1
    table["queued_tpot_error"] = table.queued_tpot_ms / table.silicon_tpot_ms - 1
    table["fits"] = table.max_batch >= table.batch_size
    table.round(4).to_csv(FOLDER / "results" / "settings.csv", index=False)
    print(table.round(3).to_string(index=False))
    fitting = table[table.fits]
    by = fitting.groupby(["system", "backend", "precision", "batch_size"])
    prompts = fitting.groupby(["system", "backend", "isl", "batch_size"])
    errors = {
        f"{name}_{word}": of(by[f"{name}_error"])
        for name in ("tpot", "step", "ttft", "queued_ttft", "queued_tpot")
        for word, of in SUMMARIES.items()
    }
    summary = pd.DataFrame(errors).round(3).reset_index()
    summary.to_csv(FOLDER / "results" / "errors.csv", index=False)
    print(summary.to_string(index=False))
    alone_and_queued = prompts[["ttft_error", "queued_ttft_error"]].median().round(3)
    alone_and_queued.to_csv(FOLDER / "results" / "ttft.csv")
    print(alone_and_queued.to_string())


if __name__ == "__main__":
    main()
