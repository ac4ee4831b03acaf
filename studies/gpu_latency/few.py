"""A few samples of a device that was left out: errors and intervals on its other rows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from score import interval_errors, interval_scores, scores

from hwmodels.estimators.gpu.residual import Spread
from hwmodels.fit.few_shot import adapt, forecast
from hwmodels.fit.residual import Model, fit_model

SAMPLES = (0, 3, 10, 30, 100)
SEEDS = 10
SCORED_ROWS = 3000


def few_shot(
    device: str, model: Model, spread: Spread, held: pd.DataFrame
) -> Iterator[tuple[str, dict[str, object]]]:
    """`k` samples of each runtime and number type, drawn at random; scored on the rest.

    Beside them a model of the device's own other shapes (k = -1), scored on the same rows.
    """
    scored = held.sample(min(SCORED_ROWS, len(held) // 3), random_state=1)
    pool = held.drop(scored.index).reset_index(drop=True)
    scored = scored.reset_index(drop=True)
    for count in SAMPLES:
        found = []
        for seed in range(SEEDS if count else 1):
            shuffled = pool.sample(frac=1.0, random_state=seed)
            drawn = shuffled.groupby(["runtime", "dtype"]).head(count).reset_index(drop=True)
            samples = adapt(model, spread, drawn) if count else ()
            predicted = forecast(model, spread, samples, scored)
            intervals = interval_scores(interval_errors(scored, predicted))
            found.append({**scores(scored, predicted.latency_s), **intervals})
        frame = pd.DataFrame(found)
        yield "few_shot", {
            "device": device, "samples_per_group": count, "seeds": len(frame),
            **{str(name): mean for name, mean in frame.mean().items()},
            "mape_all_sd": frame["mape_all"].std(ddof=0),
        }  # fmt: skip
    own = fit_model(pool, constants=model.constants)
    yield "few_shot", {
        "device": device, "samples_per_group": -1, "seeds": 1,
        **scores(scored, own.latency_s(scored)),
    }  # fmt: skip
