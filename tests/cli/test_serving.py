"""`dse predict` for several GPUs and for requests."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Dse


def test_predict_serves_requests_on_several_gpus(dse: Dse) -> None:
    found = json.loads(
        dse(
            "predict", "zoo:llama-3-8b", "--device", "h100-sxm", "--runtime", "vllm",
            "--format", "w8a8_fp8", "--prompt", "512", "--generate", "64", "--batch", "16",
            "--tensor-parallel", "2", "--price", "2", "--kv", "e4m3", "--json",
        ).out
    )  # fmt: skip
    (one,) = found
    assert one["format"] == "w8a8_fp8 kv e4m3_tensor:static"
    assert [phase["phase"] for phase in one["phases"]] == ["prefill", "decode"]
    assert one["phases"][0]["latency_s"] == pytest.approx(one["serving"]["ttft_s"])
    assert one["serving"]["max_batch"] > 16
    assert one["serving"]["cost_per_mtok"] > 0
    assert any(region["bound"] == "communication" for region in one["regions"])


def test_predict_says_what_a_format_runs_as_and_what_does_not_fit(dse: Dse) -> None:
    outcome = dse(
        "predict", "zoo:llama-3-8b", "--device", "l4", "--runtime", "vllm", "--format",
        "w4a4_nvfp4", "--format", "bf16", "--prompt", "4096", "--batch", "64",
    )  # fmt: skip
    said = " ".join((outcome.out + outcome.err).split())
    assert "w4a4_nvfp4 on l4: substituted" in said
    assert "bf16 on l4: 64 requests do not fit" in said


def test_gpus_that_cannot_share_the_heads_are_refused(dse: Dse) -> None:
    outcome = dse(
        "predict", "zoo:llama-3-8b", "--device", "h100-sxm", "--prompt", "512",
        "--tensor-parallel", "3",
    )  # fmt: skip
    assert outcome.code == 2
    assert "tensor_parallel 3 does not divide 32 heads" in " ".join(outcome.err.split())


def test_a_model_without_a_cache_is_refused(dse: Dse) -> None:
    outcome = dse("predict", "zoo:byte-gpt", "--device", "h100-sxm", "--prompt", "512")
    assert outcome.code == 2
    assert "key-value cache" in " ".join(outcome.err.split())
