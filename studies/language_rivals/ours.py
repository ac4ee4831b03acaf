"""`dse search` on the same menu as the other tools' and on the same windows, for three budgets.

`python -m studies.language_rivals.ours WORK [--trials N]`. One search has all budgets on its
front; it decides on further windows of the text that it is calibrated on, not the reported one.
"""

from __future__ import annotations

import argparse
import resource
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dse.explore.loop import run
from dse.explore.measure.session import Session, prepare
from dse.explore.problem.records import Record
from dse.space.load import parse_space
from dse.space.schema import Space
from dse.zoo.split import Split, Splits
from studies.language_rivals import layers, network, score, text

BUDGETS = (4.5, 5.0, 6.0)
SPACE = """
model: {model}
data: {{source: {work}/tokens.npz, calibration: 8, search: 8, report: 8, batch: 4}}
scenario: {{phases: {{call: {{share: 1, dims: {{batch: 1, sequence: 128}}}}}}}}
targets: [{{name: h100, device: h100-sxm, runtime: free}}]
candidates:
  - {{match: {{kind: attention}}, use: [bf16]}}
  - {{match: {{role: head}}, use: [bf16]}}
  - match: {{}}
    use: [{{name: int8, weight: int8_g64}}, {{name: int4, weight: int4_g64}}]
objectives: [quality_loss, weight_bytes]
constraints: ["weight_bytes<={most}"]
search: {{trials: {trials}, seed: 0, sensitivity_samples: 8}}
"""


def splits(work: Path) -> Splits:
    """What a tool may see: 16 windows; and their continuations, to decide the front on."""
    shown = np.concatenate([text.split(work, "calibration"), text.split(work, "search")])
    return Splits(
        calibration=_split(shown[:8]), search=_split(shown[8:]),
        report=_split(text.continued(work, "calibration")),
    )  # fmt: skip


def _split(windows: NDArray[np.int64]) -> Split:
    return Split(inputs={"tokens": windows[:, :-1]}, labels=windows[:, 1:], kind="tokens")


def space(work: Path, trials: int, elements: int, table: int) -> Space:
    """The search; what stays in 16 bits counts with 16."""
    most = elements * BUDGETS[-1] / 8 + 2 * table
    written = SPACE.format(
        model=work / "relabelled.onnx", work=work, trials=trials, most=round(most)
    )
    return parse_space(written, origin="language_rivals")


def applied(session: Session, record: Record) -> dict[str, NDArray[np.float32]]:
    """The weights of an assignment, as (inputs, outputs)."""
    weights = network.weights_of(Path(str(session.design.model.graph.path)))
    found = session.evaluator.emulators(session.design.problem.assignment(record.point))
    for key, emulator in found.items():
        site = session.evaluator.sites[key]
        if site.role == "weight" and site.value in weights:
            values = emulator(torch.from_numpy(np.array(weights[site.value])))
            weights[site.value] = values.numpy()
    return weights


def main() -> None:
    """The recipe of each budget, scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--trials", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    weights = network.weights_of(given.work / "relabelled.onnx")
    elements = sum(w.size for name, w in weights.items() if "_proj" in name)
    table = weights[network.EMBEDDING].size
    before = _seconds()
    session = prepare(
        space(given.work, given.trials, elements, table), origin="language_rivals",
        folder=given.work, splits=splits(given.work),
    )  # fmt: skip
    print(f"prepared: {_seconds() - before:.0f} CPU s", flush=True)
    out = given.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    front = run(session, out, progress=lambda status: print(status.stage, status, flush=True))
    spent = _seconds() - before
    forwards = session.evaluator.macs / session.evaluator.forward_macs("search")
    for budget in BUDGETS:
        fitting = [(one, layers.held_bytes(_bits(session, one), weights)) for one in front]
        fitting = [(one, held) for one, held in fitting if 8 * held <= elements * budget]
        best, held = min(fitting, key=lambda pair: _loss(pair[0]))
        score.append(
            given.work, tool="dse", recipe=f"search {budget}, {given.trials} trials",
            weights=applied(session, best), held=held, whole=False, cpu_seconds=spent,
            forwards=forwards,
        )  # fmt: skip


def _loss(record: Record) -> float:
    return (record.report or record.search).loss


def _bits(session: Session, record: Record) -> dict[str, float]:
    """Bits of every matrix of the layers."""
    assignment = session.design.problem.assignment(record.point)
    found: dict[str, float] = {}
    for key, quantizer in assignment:
        site = session.evaluator.sites[key]
        if site.role == "weight" and "_proj" in site.value:
            found[site.value.removesuffix(".weight")] = float(quantizer.format.element.bits)
    return found


def _seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
