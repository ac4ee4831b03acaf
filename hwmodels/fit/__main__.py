"""`python -m hwmodels.fit --aiconfigurator DIR --torch-ops OPS.csv.gz -o ARTEFACT.npz`.

Rebuilds the GPU artefact from the measurement tables: constants and trees on all devices, the
interval of seen devices from folds over shapes, that of others from leaving each device
out.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.residual import ARTEFACT, GpuArtefact, save_artefact
from hwmodels.fit.kernels import fit_kernels
from hwmodels.fit.measurement import read_aiconfigurator, read_torch_ops
from hwmodels.fit.spread import DeviceFits
from hwmodels.operators.number_type import NUMBER_TYPES

LOG = logging.getLogger("hwmodels.fit")
VERSION = "4"
OPERATOR_DEVICE = "h100-sxm"
"""The device of `--torch-ops`."""


def main() -> None:
    """Reads, fits, writes; logs what it does."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _arguments()
    table = read_tables(
        arguments.aiconfigurator, arguments.torch_ops, arguments.share, arguments.seed
    )
    LOG.info("%d rows of %d devices", len(table), table["device"].nunique())
    model = DeviceFits(table, arguments.seed).whole(sorted(table["device"].unique()))
    constants = model.constants
    if arguments.torch_ops is not None:
        device = load_device(OPERATOR_DEVICE)
        constants = fit_kernels(arguments.torch_ops, device, model.constants)
    LOG.info("constants %s", constants)
    LOG.info("spreads %s, %s", model.learned.seen, model.learned.unseen)
    save_artefact(
        GpuArtefact(
            version=VERSION,
            constants=constants,
            overheads=model.overheads,
            learned=model.learned,
            weight_only=weight_only_runtimes(table),
        ),
        arguments.output,
    )
    LOG.info("wrote %s, %d bytes", arguments.output, arguments.output.stat().st_size)


def read_tables(
    aiconfigurator: Path, torch_ops: Path | None, share: float, seed: int
) -> pd.DataFrame:
    """A share of the many warm GEMMs, and all of the few cold ones."""
    tables = [read_aiconfigurator(aiconfigurator).sample(frac=share, random_state=seed)]
    if torch_ops is not None:
        tables.append(read_torch_ops(torch_ops))
    return pd.concat(tables, ignore_index=True)


def weight_only_runtimes(table: pd.DataFrame) -> tuple[str, ...]:
    """Runtimes with rows whose weights are narrower than their activations."""
    narrow = [name for name, number in NUMBER_TYPES.items() if number.is_weight_only]
    return tuple(sorted(table[table["dtype"].isin(narrow)]["runtime"].unique()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit", description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("--torch-ops", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    parser.add_argument("--share", type=float, default=0.08, help="share of the warm rows to use")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
