"""The loop, closed: proposals are exported, measured by a script, and told."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from dse.bench.folder import RESULTS
from dse.errors import ExportError, RunError, WriteError
from dse.explore.propose import propose
from dse.explore.reprice import reprice
from dse.explore.restore import restored_to_read
from dse.explore.run import Overrides
from dse.explore.tell import tell
from dse.export.loop.deliver import propose_to
from tests.bench import outputs
from tests.cli.conftest import Dse

TOOL = """#!/bin/bash
# Prints what was recorded of the model, and writes the logits that it was asked for.
model=$(basename "$2" .gguf)
if [ "$3" = -f ]; then [ -s "$4" ] || exit 3; echo logits > "$6"; fi
echo "some log" >&2
cat "$RECORDED/$(basename "$0")/$model"
"""


def recorded(where: Path, losses: dict[str, float], seconds: float) -> dict[str, str]:
    """Stand-ins for llama.cpp's programs, and the environment that finds them."""
    tools = where / "tools"
    for name in ("llama-perplexity", "llama-bench"):
        outputs.write(tools / name, TOOL).chmod(0o755)
    scratch, records = where / "scratch", where / "recorded"
    for model, loss in losses.items():
        kld = f" {loss:.6f} ± {loss / 50:.6f}" if model != "reference" else ""
        perplexity = outputs.llama_perplexity(scratch, 10 * math.exp(loss), 0.1, kld, base=10)
        outputs.write(records / "llama-perplexity" / model, perplexity.read_text())
        row = outputs.bench_row(f"{model}.gguf", 16, 0, 0, seconds)
        bench = outputs.llama_bench(scratch, [row], "json")
        outputs.write(records / "llama-bench" / model, bench.read_text())
    text = outputs.write(where / "text.txt", "a text")
    return {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RECORDED": str(records),
        "TEXT": str(text),
    }  # fmt: skip


def measured(script: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the script said."""
    return subprocess.run([script], env=environment, capture_output=True, text=True, check=False)


def test_the_script_of_gguf_files_measures_and_its_results_are_told(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next"
    done = propose_to(run, 3, out, to="gguf")
    digests = [one.digest for one in done.proposals]
    assert all((out / f"{digest}.gguf").is_file() for digest in digests)
    before = pd.read_csv(run / "trials.csv").set_index("digest")
    losses = {digest: 1e-4 * (1 + place) for place, digest in enumerate(digests)}
    environment = recorded(tmp_path, {**losses, "reference": 0.0}, seconds=0.5)
    first, second = (measured(done.script, environment) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "measuring" in first.stderr
    assert "measuring" not in second.stderr
    lesson = tell(run, out)
    assert lesson.new == 3
    assert lesson.ratios["cpu.latency_s"] > 1
    after = pd.read_csv(run / "trials.csv").set_index("digest")
    for digest, loss in losses.items():
        assert after.quality_loss[digest] == pytest.approx(loss)
        assert after["cpu.latency_s"][digest] == 0.5
        assert "cpu.latency_s" in after.told[digest]
    rest = before.index
    ratio = lesson.ratios["cpu.latency_s"]
    np.testing.assert_allclose(
        after["cpu.latency_s"][rest], ratio * before["cpu.latency_s"][rest], rtol=0.1
    )
    np.testing.assert_allclose(after["gpu.latency_s"][rest], before["gpu.latency_s"][rest])


def test_a_failure_is_told_by_the_script_and_leaves_no_result(run: Path, tmp_path: Path) -> None:
    done = propose_to(run, 1, tmp_path / "next", to="gguf")
    environment = recorded(tmp_path, {"reference": 0.0}, seconds=1.0)
    ended = measured(done.script, environment)
    assert ended.returncode == 1
    digest = done.proposals[0].digest
    assert f"failed: results/{digest}/llama-perplexity.txt (see logs/" in ended.stderr
    assert list((tmp_path / "next" / RESULTS / digest).glob("*.txt")) == []
    outputs.llama_perplexity(tmp_path / "next" / RESULTS / ("0" * 16), 7.0, 0.1)
    with pytest.raises(RunError, match="belongs to no assignment"):
        tell(run, tmp_path / "next")


def log_probabilities(folder: Path) -> torch.Tensor:
    """(sequences, tokens, vocabulary), as transformers computes them on a CPU."""
    tokens = torch.from_numpy(np.random.default_rng(1).integers(3, 300, (128, 32)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.inference_mode():
        return torch.log_softmax(model(tokens).logits.float(), -1)


def test_folders_are_scored_by_transformers_and_their_scores_become_losses(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next"
    done = propose_to(run, 3, out, to="compressed-tensors")
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["target"], done.remarks) == ("gpu", ())
    reference = log_probabilities(out / plan["models"]["reference"])
    torch.manual_seed(0)
    drawn = torch.multinomial(reference.exp().flatten(0, 1), 1)
    for name, path in plan["models"].items():
        nats = -log_probabilities(out / path).flatten(0, 1).gather(-1, drawn)
        metrics = {"text": {"word_perplexity": (float(nats.mean().exp()), None)}}
        outputs.lm_eval(out / RESULTS / name, metrics, model=name)
    lesson = tell(run, out)
    assert lesson.new == 3, lesson.remarks
    after = pd.read_csv(run / "trials.csv").set_index("digest")
    (remark,) = (one for one in lesson.remarks if one.startswith("score.text.word_perplexity"))
    assert "nats a unit lost, over 3 assignments" in remark
    told = after.loc[[one.digest for one in done.proposals]]
    assert (told["score.text.word_perplexity"] > 1).all()
    assert (told.quality_loss > 0).all()
    assert (told.source == "user").all()
    script = done.script.read_text()
    assert "vllm serve" in script
    assert "lm_eval --model local-completions" in script
    assert "vllm bench latency" in script
    subprocess.run(["bash", "-n", done.script], check=True)


def test_scores_beyond_their_noise_make_trials(run: Path, tmp_path: Path) -> None:
    done = propose_to(run, 3, tmp_path / "next", to="compressed-tensors")
    results = tmp_path / "next" / RESULTS
    outputs.lm_eval(results / "reference", {"arc": {"acc": (0.8, 1e-5)}}, model="reference")
    for one in done.proposals:
        lost = 1e3 * one.losses["quality_loss"] * (2 if one is done.proposals[0] else 1)
        outputs.lm_eval(
            results / one.digest, {"arc": {"acc": (0.8 - lost, 1e-5)}}, model=one.digest
        )
    lesson = tell(run, tmp_path / "next")
    assert lesson.new == 3
    after = pd.read_csv(run / "trials.csv").set_index("digest")
    factor = sum(one.losses["quality_loss"] for one in done.proposals) / (
        1e3
        * sum(
            one.losses["quality_loss"] * (2 if one is done.proposals[0] else 1)
            for one in done.proposals
        )
    )
    first = done.proposals[0]
    assert after.quality_loss[first.digest] == pytest.approx(
        2e3 * first.losses["quality_loss"] * factor, rel=0.05
    )
    assert (after.quality_stderr[[one.digest for one in done.proposals]] > 0).all()
    other = tmp_path / "other"
    reprice(run, overrides=Overrides(targets=("a100-sxm-80gb:vllm",)), out=other)
    kept = pd.read_csv(other / "trials.csv").set_index("digest")
    assert kept["score.arc.acc"].dropna().to_dict() == after["score.arc.acc"].dropna().to_dict()
    with restored_to_read(other) as past:
        assert past.study.user_attrs["reference.score.arc.acc"]["value"] == 0.8


def test_a_score_that_is_told_again_replaces_the_loss_that_it_told(
    run: Path, tmp_path: Path
) -> None:
    first, *others = propose(run, 3, tmp_path / "next")
    fresh = Path(shutil.copytree(run, tmp_path / "fresh"))

    def losses(folder: Path, share: float, *, new: int) -> dict[str, float]:
        results = tmp_path / RESULTS
        outputs.lm_eval(results / "reference", {"arc": {"acc": (0.8, 1e-5)}})
        for one in (first, *others):
            lost = 1e3 * one.losses["quality_loss"] * (share if one is first else 1)
            outputs.lm_eval(results / one.digest, {"arc": {"acc": (0.8 - lost, 1e-5)}})
        assert tell(folder, tmp_path).new == new
        trials = pd.read_csv(folder / "trials.csv").set_index("digest")
        digests = [one.digest for one in (first, *others)]
        assert {*trials.told[digests]} == {"score.arc.acc score.arc.acc_stderr"}
        return dict(trials.quality_loss[digests])

    wrong = losses(run, 3, new=3)
    assert losses(run, 3, new=0) == wrong
    right = losses(run, 1, new=0)
    assert right[first.digest] < 0.9 * wrong[first.digest]
    assert right == pytest.approx(losses(fresh, 1, new=3))


def test_proposals_have_only_what_the_exporter_can_say(run: Path, tmp_path: Path) -> None:
    for to, never in (("gguf", "int8_channel"), ("compressed-tensors", "q4_k")):
        done = propose_to(run, 2, tmp_path / to, to=to)
        texts = [(tmp_path / to / one.file.name).read_text() for one in done.proposals]
        assert texts
        assert all(never not in text for text in texts)


def test_the_command_line_says_what_to_do_next_and_what_was_not_told(
    dse: Dse, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next"
    proposed = dse("propose", run, "-n", 2, "--to", "gguf", "-o", out)
    assert proposed.code == 0, proposed.err
    assert f"{out / 'measure.sh'}, and then: dse tell {run} {out}" in proposed.out
    nothing = dse("tell", run, out)
    assert (nothing.code, "no results; run the script" in nothing.err) == (2, True)
    digest = json.loads((out / "plan.json").read_text())["models"].popitem()[0]
    rows = [outputs.bench_row(f"{digest}.gguf", tokens, 0, 0, 0.5) for tokens in (16, 512)]
    outputs.llama_bench(out / RESULTS / digest, rows, "jsonl")
    told = dse("tell", run, out)
    assert told.code == 0, told.err
    assert "1 x 512 tokens with 512 positions is no phase of the run" in told.out
    assert "cpu.latency_s: measured over predicted was" in told.out
    (out / RESULTS / digest / "torn.json").write_text('{"results": ')
    torn = dse("tell", run, out)
    assert (torn.code, "torn.json: is torn, or no JSON" in torn.err) == (2, True)


def test_what_cannot_be_measured_is_refused_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    journal = (run / "study.log").read_bytes()
    with pytest.raises(ExportError, match="--to onnx-qdq: nothing that scores and times"):
        propose_to(run, 1, tmp_path / "next", to="onnx-qdq")
    with pytest.raises(ExportError, match="no such target"):
        propose_to(run, 1, tmp_path / "next", to="gguff")
    with pytest.raises(RunError, match="--target cpi: not a target"):
        propose_to(run, 1, tmp_path / "next", to="gguf", target="cpi")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(WriteError, match="exists already"):
        propose_to(run, 1, tmp_path / "full", to="gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "run"]
    assert (run / "study.log").read_bytes() == journal
