"""One scorer for the weights that any tool leaves: divergence, perplexity, the next token.

Weights are what the tool's file stands for, in float32; activations are float32 for all.
"""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dse.zoo.llama import Llama, LlamaConfig
from studies.language_rivals import ask, network, text

RESULTS = Path(__file__).parent / "results" / "recipes.csv"
WINDOWS = RESULTS.with_name("windows.csv")
"""Divergence of every window by recipe, for paired differences."""
Weights = Mapping[str, NDArray[np.float32]]


def model_of(weights: Weights) -> Llama:
    """The network with the weights of Hugging Face names, as (inputs, outputs)."""
    config = LlamaConfig(
        vocabulary=49152, width=network.WIDTH, layers=network.LAYERS, heads=network.HEADS,
        kv_heads=network.KV_HEADS, ffn_width=network.FFN, rope_base=100000.0, norm_epsilon=1e-5,
        tied_head=True,
    )  # fmt: skip
    model = Llama(config).eval()
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    return model


def logits(model: Llama, window: NDArray[np.int64]) -> Tensor:
    """(SHORT, vocabulary) log-probabilities of the tokens after each."""
    with torch.inference_mode():
        found: Tensor = model(torch.from_numpy(window[None, :-1]))[0]
        return functional.log_softmax(found, dim=-1)


def reference(work: Path) -> list[Tensor]:
    """Log-probabilities of full precision on the report windows, kept on disk."""
    path = work / "reference.pt"
    if path.exists():
        found: list[Tensor] = torch.load(path)
        return found
    model = model_of(network.weights_of(work / "relabelled.onnx"))
    kept = [logits(model, window) for window in windows(work)]
    torch.save(kept, path)
    return kept


def spent(work: Path) -> dict[str, float]:
    """CPU seconds that each tool's scores took, by its name."""
    path = work / "seconds.json"
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return found


def note_spent(work: Path, tool: str) -> None:
    """Keeps the CPU seconds of this process as those of a tool."""
    seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    (work / "seconds.json").write_text(json.dumps(spent(work) | {tool: round(seconds, 1)}))


def windows(work: Path) -> NDArray[np.int64]:
    """Every other window of the report split."""
    return text.split(work, "report")[::2]


def measure(work: Path, model: Llama) -> tuple[dict[str, float], list[float]]:
    """Every figure of a network, and the divergence of each window."""
    rows = [
        _window(base, logits(model, window), torch.from_numpy(window[1:]))
        for base, window in zip(reference(work), windows(work), strict=True)
    ]
    table = np.array(rows)
    kl, base, here, same, right = table.T
    figures = {
        "kl": float(kl.mean()), "kl_stderr": float(kl.std(ddof=1) / len(kl) ** 0.5),
        "perplexity": float(np.exp(here.mean())),
        "perplexity_ratio": float(np.exp(here.mean() - base.mean())),
        "same_token": float(same.mean()), "next_token": float(right.mean()),
    }  # fmt: skip
    return figures, [float(one) for one in kl]


def _window(base: Tensor, here: Tensor, labels: Tensor) -> list[float]:
    kl = (base.exp() * (base - here)).sum(-1).mean()
    at = torch.arange(len(labels))
    same = (base.argmax(-1) == here.argmax(-1)).float().mean()
    right = (here.argmax(-1) == labels).float().mean()
    return [
        float(kl), float(-base[at, labels].mean()), float(-here[at, labels].mean()),
        float(same), float(right),
    ]  # fmt: skip


def append(
    work: Path,
    *,
    tool: str,
    recipe: str,
    weights: Weights,
    held: float,
    whole: bool,
    cpu_seconds: float,
    forwards: float,
) -> None:
    """Scores a recipe, asks it, and adds its row to the table, in place of an older one.

    Args:
        work: the folder of the network and its text.
        tool: whose it is.
        recipe: its name.
        weights: as (inputs, outputs).
        held: bytes of all that is stored if `whole`, else of the layers' matrices.
        whole: whether the table of embeddings is quantized, too.
        cpu_seconds: of the tool.
        forwards: passes over the 8 search windows that its work equals.
    """
    counted = sum(w.size for name, w in weights.items() if whole or "_proj" in name)
    model = model_of(weights)
    figures, divergences = measure(work, model)
    ask.ask(work, tool, recipe, model)
    row = {
        "tool": tool, "recipe": recipe, "whole": int(whole),
        "bits_per_weight": 8 * held / counted, "bytes": round(held),
        **figures, "cpu_seconds": cpu_seconds, "forwards": forwards,
    }  # fmt: skip
    print({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    put(RESULTS, row)
    put(
        WINDOWS,
        {"tool": tool, "recipe": recipe} | {f"kl_{n}": kl for n, kl in enumerate(divergences)},
    )


def put(path: Path, row: Mapping[str, object], keys: tuple[str, ...] = ("tool", "recipe")) -> None:
    """Adds a row to a table, in place of an older one of the same keys."""
    shown = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
    kept = []
    if path.exists():
        with path.open(newline="") as stream:
            kept = [r for r in csv.DictReader(stream) if any(r[k] != shown[k] for k in keys)]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*shown], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, shown])
