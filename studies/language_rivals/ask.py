"""Asks a network the questions of `questions`, by the product's own measure of tasks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dse.evaluate.metric import Inputs, Run
from dse.evaluate.tasks.measure import Network, measure
from dse.evaluate.tasks.schema import load_tasks
from dse.text.reader import TextReader
from dse.text.tokenizer import read_tokenizer
from studies.language_rivals import questions

ANSWERS = "answers"
METRICS = ("acc", "answer_nats")
BATCH = 16
UNASKED = re.compile(r"nearest|Q6_K|fused|apart|its table|types|llama.cpp: Q\d_K_M$")
"""Recipes that are not asked: variants of others, for want of time."""


def ask(work: Path, tool: str, recipe: str, model: nn.Module) -> None:
    """Keeps a network's answers, if there are questions and it is one of those that are asked."""
    name = f"{tool}: {recipe}"
    file = work / questions.TASKS
    if not file.exists() or UNASKED.search(name):
        return

    def execute(inputs: Inputs) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(torch.from_numpy(inputs["tokens"])).numpy()
            return found

    reader = TextReader(tokenizer=read_tokenizer(work / "hf"), context=None, causal=True)
    network = Network(run=Run(("tokens",), execute), reader=reader, batch=BATCH)
    kept = {
        f"{entry.name}/{metric}": scores.values.tolist()
        for entry in load_tasks(file)
        for metric, scores in measure(entry, network).items()
        if metric in METRICS
    }
    (work / ANSWERS).mkdir(exist_ok=True)
    content = {"tool": tool, "recipe": recipe, "answers": kept}
    (work / ANSWERS / f"{name.replace('/', '-')}.json").write_text(json.dumps(content))
