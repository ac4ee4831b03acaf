"""`dse predict` for several GPUs and for requests."""

from __future__ import annotations

import json
import math

import pytest

from dse.cli.predicted.serving import not_fitting
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
    assert "bf16 on l4: 64 requests do not fit, 6 do; needs" in said


@pytest.mark.parametrize(
    ("batch", "fitting", "said"),
    [
        (1, 0, "1 request does not fit beside the weights"),
        (8, 0, "8 requests do not fit, none does"),
        (8, 1, "8 requests do not fit, 1 does"),
        (8, 3, "8 requests do not fit, 3 do"),
    ],
)
def test_requests_that_do_not_fit_are_counted_in_plain_words(
    batch: int, fitting: int, said: str
) -> None:
    assert not_fitting(batch, fitting) == said


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


ASKED = ("predict", "zoo:llama-3-8b", "--device", "h100-sxm:vllm", "--format", "w8a8_fp8",
         "--prompt", "2048", "--generate", "64")  # fmt: skip


def test_predict_says_what_requests_find_while_others_are_served(dse: Dse) -> None:
    alone, busy = (
        json.loads(dse(*ASKED, "--batch", number, "--json").out)[0] for number in ("1", "32")
    )
    assert alone["load"]["ttft_mean_s"] == pytest.approx(alone["serving"]["ttft_s"], rel=0.02)
    assert busy["load"]["in_flight"] == pytest.approx(32)
    assert alone["load"]["ttft_p99_s"] < busy["load"]["ttft_mean_s"] < busy["load"]["ttft_p99_s"]
    assert busy["load"]["rate"] > 3 * alone["load"]["rate"]
    assert busy["sustained_rate"] is None


def test_predict_finds_the_requests_a_second_that_keep_a_bound(dse: Dse) -> None:
    found = json.loads(dse(*ASKED, "--constraint", "ttft_p99_s<=0.3", "--json").out)[0]
    assert found["load"]["ttft_p99_s"] <= 0.3
    rate = found["sustained_rate"]
    more = json.loads(dse(*ASKED, "--rate", str(1.2 * rate), "--json").out)[0]
    assert more["load"]["ttft_p99_s"] > 0.3
    endless = (*ASKED, "--rate", str(100 * rate))
    assert "the queue grows without end" in " ".join(dse(*endless).out.split())
    assert json.loads(dse(*endless, "--json").out)[0]["load"]["ttft_mean_s"] is None


@pytest.mark.parametrize("bounds", [(), ("--constraint", "tpot_p99_s<=0.05")])
def test_predict_says_how_many_times_the_requests_a_format_answers(
    dse: Dse, bounds: tuple[str, ...]
) -> None:
    asked = (*ASKED, *bounds, "--format", "bf16")
    first, other = json.loads(dse(*asked, "--json").out)
    assert (first["rate_gain_low"], first["rate_gain"], first["rate_gain_high"]) == (1, 1, 1)
    answered = [one["sustained_rate"] or one["load"]["most_rate"] for one in (first, other)]
    assert other["rate_gain"] == pytest.approx(answered[1] / answered[0])
    reach = math.log(other["rate_gain_high"] / other["rate_gain_low"]) / 2
    alone = [math.log(one["high_s"] / one["low_s"]) / 2 for one in (first, other)]
    assert 0 < reach < sum(alone), "errors of one device move together"


def test_the_table_of_loads_compares_formats(dse: Dse) -> None:
    shown = dse(*ASKED, "--format", "bf16").out.splitlines()
    assert next(row for row in shown if "most rate" in row).split()[-1] == "requests"
    assert any("how many times as many a second" in row for row in shown)
    assert "as many a second" not in dse(*ASKED).out, "there is nothing to compare with"


def test_no_request_has_no_ratio(dse: Dse) -> None:
    asked = (*ASKED, "--format", "bf16", "--constraint", "ttft_p99_s<=1e-6", "--json")
    assert [one["rate_gain"] for one in json.loads(dse(*asked).out)] == [None, None]


def test_predict_says_where_nothing_is_known_of_batching(dse: Dse) -> None:
    words = "no source says how it batches requests"
    assert words not in dse(*ASKED).out
    assert words in " ".join(dse(*ASKED, "--device", "h100-sxm:torch-eager").out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "2", "--constraint", "ttft_p99_s<=1"), "leave one out"),
        (("--constraint", "ttft_p98_s<=1"), "did you mean 'ttft_p99_s'"),
        (("--constraint", "rate>=5"), "expected an upper bound"),
        (("--constraint", "ttft"), "expected '<column><=<number>'"),
        (("--rate", "0"), "--rate"),
        (("--rate", "2", "--regions"), "leave out --regions"),
        (
            ("--constraint", "ttft_p99_s<=1", "--sweep", "memories.dram.bandwidth=1TB/s,2TB/s"),
            "leave out --regions, --sensitivity and --sweep",
        ),
        (("--constraint", "most_rate<=3"), "no such column"),
    ],
)
def test_bounds_that_cannot_be_looked_for_are_refused(
    dse: Dse, options: tuple[str, ...], message: str
) -> None:
    outcome = dse(*ASKED, *options)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_a_rate_without_requests_is_refused(dse: Dse) -> None:
    outcome = dse("predict", "zoo:llama-3-8b", "--device", "h100-sxm", "--rate", "2")
    assert outcome.code == 2
    assert "add --prompt" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (("--batch", "64"), "--batch:"),
        (("--generate", "8", "--price", "2"), "--generate and --price:"),
        (("--memory-utilisation", "0.5", "--training", "nvfp4"), "--memory-utilisation:"),
    ],
)
def test_options_of_requests_are_refused_where_a_single_call_is_priced(
    dse: Dse, options: tuple[str, ...], flags: str
) -> None:
    outcome = dse(
        "predict", "zoo:fashion-resnet", "--device", "h100-sxm", "--dim", "batch=1", *options
    )
    assert outcome.code == 2
    said = " ".join(outcome.err.split())
    assert flags in said
    assert "add --prompt" in said


@pytest.mark.parametrize("asked", [("--rate", "1"), ("--constraint", "ttft_p99_s<=1")])
def test_a_load_that_does_not_fit_in_memory_is_said_to_be_none(
    dse: Dse, asked: tuple[str, ...]
) -> None:
    unfit = (*ASKED, "--memory-utilisation", "0.1", *asked)
    assert "no load, as not one request fits" in " ".join(dse(*unfit).out.split())
    one = json.loads(dse(*unfit, "--json").out)[0]
    assert one["load"] is None
    assert any("no load" in remark for remark in one["remarks"])


def test_prompts_of_one_iteration_are_priced_together(dse: Dse) -> None:
    """Weights are read once: eight short prompts at once take hardly longer than one."""
    alone, together = (
        json.loads(dse(*ASKED, "--prompt", "64", "--generate", "2", "--batch", n, "--json").out)[0]
        for n in ("1", "8")
    )
    assert together["load"]["ttft_mean_s"] < 3 * alone["serving"]["ttft_s"]
