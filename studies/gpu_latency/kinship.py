"""The law of kinship: which reach, and how much of a correlation another family leaves.

Two devices that were measured and one that was left out, or three: the trees of each are asked,
and joined by every law of a grid. A device's choice sees only the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.kinship import LAW, Kin, Law, shares
from hwmodels.estimators.gpu.learned import TYPE, Source
from hwmodels.estimators.gpu.trees import with_name
from hwmodels.fit.residual import GROUP, Model, runs
from hwmodels.fit.spread import DeviceFits

REACHES = (1.0, 2.0, 2.5, 3.0, 4.0, 6.0)
OTHERS = (1.0, 0.9, 0.8, 0.5)
LAWS = tuple(Law(reach=reach, other=other) for reach, other in product(REACHES, OTHERS))
MOST_ROWS = 4000


def grid(fits: DeviceFits, table: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Mean |log(measured / predicted)| in % of every law by device left out, and what nesting
    chooses; number types of runtimes weigh the same."""
    names = sorted(table["device"].unique())
    found: dict[tuple[str, frozenset[str]], np.ndarray] = {}
    for count in (len(names) - 1, len(names) - 2):
        for kept in combinations(names, count):
            for held in sorted(set(names) - set(kept)):
                rows = table[table["device"] == held]
                rows = rows.sample(min(MOST_ROWS, len(rows)), random_state=0)
                rows = rows.reset_index(drop=True)
                found[held, frozenset(kept)] = _errors(fits.model(kept), rows)
    for held in names:
        others = frozenset(names) - {held}
        inner = [found[one, others - {one}] for one in sorted(others)]
        nested = int(np.argmin(np.mean(inner, axis=0)))
        errors = found[held, others]
        for index, law in enumerate(LAWS):
            yield {
                "left_out": held, "reach": law.reach, "other": law.other,
                "mean_abs_log": 100 * errors[index], "nested_choice": index == nested,
                "shipped": law == LAW,
            }  # fmt: skip


def _errors(model: Model, rows: pd.DataFrame) -> np.ndarray:
    """Error of every law, shape (laws,)."""
    account = model.account(rows)
    overhead = account.overhead_s(rows, model.overheads)
    corrections = np.zeros((len(LAWS), len(rows)))
    for device, runtime, index in runs(rows):
        features = account.features[index]
        kin = Kin.of(load_device(device))
        columns = with_name(features, runtime, model.learned.runtimes)
        sources = list(model.learned.sources.values())
        asked = np.array([source.trees.predict(columns) for source in sources])
        kinds, of_row = np.unique(features[:, TYPE], axis=0, return_inverse=True)
        for at, kind in enumerate(kinds):
            chosen = of_row.reshape(-1) == at
            for number, law in enumerate(LAWS):
                weights = _weights(kin, sources, kind, runtime, law)
                corrections[number, index[chosen]] = weights @ asked[:, chosen]
    seconds = np.maximum(account.gemm_s * np.exp(corrections) + overhead, account.light_s)
    errors = np.abs(np.log(seconds / rows["latency_s"].to_numpy()))
    weights = 1 / rows.groupby(GROUP)["k"].transform("size").to_numpy(dtype=float)
    return errors @ weights / weights.sum()


def _weights(
    kin: Kin, sources: Sequence[Source], kind: np.ndarray, runtime: str, law: Law
) -> np.ndarray:
    knowing = np.array([source.knows(kind) for source in sources], dtype=bool)
    known = [source for source in sources if source.knows(kind)]
    weights = np.zeros(len(sources))
    with_it = [source.knows(kind, runtime) for source in known]
    weights[knowing] = shares(kin, [source.kin for source in known], with_it, law).weights
    return weights
