"""What other tools wrote, changed: read, or refused with an error of ours."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dse.bench.folder import read_folder
from dse.errors import DseError
from tests.bench import outputs
from tests.hostile import mutate

CASES = 300
MODEL = "0123456789abcdef"
LOAD: dict[str, Any] = {"prompt": 64, "generated": 8}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One file of each tool."""
    folder = tmp_path_factory.mktemp("sound")
    outputs.vllm_serve(folder, **LOAD, requests=4, ttft_ms=9, tpot_ms=2)
    outputs.vllm_throughput(folder, **LOAD, per_second=2)
    outputs.vllm_latency(folder, "vllm-latency_batch1_input64_output1.json", 0.8)
    outputs.trtllm_bench(folder, **LOAD, requests=4, ttft_ms=9, tpot_ms=2, tokens_per_s=99)
    outputs.llama_perplexity(folder, 6.5, 0.1)
    outputs.llama_bench(folder, [outputs.bench_row("m", 64, 8, 0, 0.5)], "json")
    outputs.lm_eval(folder, {"wikitext": {"word_perplexity": (9.0, 0.1)}})
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_files_of_other_tools_are_read_or_refused(sound: list[Path], tmp_path: Path) -> None:
    for case in range(CASES):
        rng = random.Random(case)
        source = rng.choice(sound)
        is_tree = source.suffix == ".json" and rng.random() < 0.8
        changed = (
            mutate.json_file(rng, source) if is_tree else mutate.flipped(rng, source.read_bytes())
        )
        target = tmp_path / str(case) / "results" / MODEL / source.name
        target.parent.mkdir(parents=True)
        target.write_bytes(changed)
        with suppress(DseError):
            read_folder(tmp_path / str(case))
