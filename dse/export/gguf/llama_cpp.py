"""Log-probabilities of a next token as llama.cpp computes them, in a process of its own.

llama.cpp ends the process where it finds something wrong. This file is run, not imported, and
loads nothing of the project: `python llama_cpp.py MODEL.gguf SIZE TOKEN...` prints JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SMALLEST_CONTEXT = 64
DRAWS = 32


def next_token(path: str, size: int, tokens: list[int]) -> list[list[float]]:
    """Token and log-probability of every token that may follow."""
    import xllamacpp  # noqa: PLC0415 (an extra)

    given = xllamacpp.CommonParams()
    given.model.path = path
    given.n_ctx, given.n_parallel, given.warmup = max(2 * len(tokens), SMALLEST_CONTEXT), 1, False
    server = xllamacpp.Server(given)
    for seed in range(DRAWS):
        asked = {
            "prompt": tokens, "n_predict": 1, "temperature": 1.0, "seed": seed, "n_probs": size,
            "post_sampling_probs": False,
        }  # fmt: skip
        answer: Any = server.handle_completions(asked)
        content = answer if isinstance(answer, dict) else json.loads(answer)
        steps = content.get("completion_probabilities") or _steps(content["choices"][0])
        if steps:
            return [[one["id"], one["logprob"]] for one in steps[0]["top_logprobs"]]
    raise RuntimeError(f"no token that is text in {DRAWS} draws")


def _steps(choice: Any) -> Any:
    """None after a token that is a part of a character, or none: it is kept for the next one."""
    return (choice.get("logprobs") or {}).get("content")


if __name__ == "__main__":
    found = next_token(sys.argv[1], int(sys.argv[2]), [int(token) for token in sys.argv[3:]])
    sys.stdout.write("\n" + json.dumps(found) + "\n")
