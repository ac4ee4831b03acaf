"""`python -m hwmodels.fit.cpu OPS.csv --device D`: the shipped constants of processors.

Factors on the terms of families of kernels, fitted to an operator table of one processor.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

from hwmodels.devices.load import load_device
from hwmodels.estimators.cpu.constants import ARTEFACT, load_constants
from hwmodels.estimators.cpu.fitting import fitted_factors
from hwmodels.operators.measured import measurements_of
from hwmodels.operators.optable import read_optable, timed_rows

LOG = logging.getLogger("hwmodels.fit.cpu")


def main() -> None:
    """Fits the shipped constants to an operator table of one processor."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit.cpu", description=__doc__)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    arguments = parser.parse_args()
    table = read_optable(arguments.measurements, timed=True)
    device = load_device(arguments.device)
    measurements = measurements_of(table, timed_rows(table), device.default_runtime)
    constants = replace(load_constants(), factors=())
    factors = fitted_factors(measurements, device, constants)
    lines = ",\n  ".join(json.dumps(asdict(one)) for one in factors)
    text = f'{{"device": "{device.name}", "factors": [\n  {lines}\n]}}\n'
    arguments.output.write_text(text, encoding="utf-8")
    LOG.info("wrote %s, %d factors", arguments.output, len(factors))


if __name__ == "__main__":
    main()
