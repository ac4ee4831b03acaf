"""`python -m hwmodels.fit.circuits gates|sram --cacti SRAM.csv.gz -o ARTEFACT.json`.

`gates` prints the constants of `hwmodels.circuits.technology`, least squares of logarithms over
published arithmetic units. `sram` fits CACTI's output and writes the artefact that
`hwmodels.circuits.sram` reads, with errors on capacities left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls

from hwmodels.circuits import gates
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.mac import float_adder, float_multiplier
from hwmodels.circuits.node import logic_energy_factor
from hwmodels.circuits.sram import QUANTITIES, features

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A published arithmetic unit: its gates here, its area and energy there."""

    gates: Gates
    area_um2: float | None
    energy_pj: float


def _ieee_adder(exponent_bits: int, mantissa_bits: int) -> Gates:
    rounding = gates.incrementer(mantissa_bits + 1)
    return float_adder(exponent_bits, mantissa_bits) + rounding


HOROWITZ_UNITS: Mapping[str, Unit] = {
    "int8 add": Unit(gates.adder(8), 36, 0.03),
    "int16 add": Unit(gates.adder(16), None, 0.05),
    "int32 add": Unit(gates.adder(32), 137, 0.1),
    "int8 multiply": Unit(gates.multiplier(8, 8), 282, 0.2),
    "int32 multiply": Unit(gates.multiplier(32, 32), 3495, 3.1),
    "fp16 add": Unit(_ieee_adder(5, 10), 1360, 0.4),
    "fp32 add": Unit(_ieee_adder(8, 23), 4184, 0.9),
    "fp16 multiply": Unit(float_multiplier(5, 10), 1640, 1.1),
    "fp32 multiply": Unit(float_multiplier(8, 23), 7700, 3.7),
}
"""45 nm, 0.9 V. Energies: Horowitz, Computing's energy problem, ISSCC 2014 (those of 32 bits read
in PMC8934428, table 3); areas: the same table as Dally and others print it (recalled)."""

ALADDIN_UNITS: Mapping[str, Unit] = {
    "int32 multiply": Unit(gates.multiplier(32, 32), 6350, 12.68),
    "int8 multiply, int16 add": Unit(gates.multiplier(8, 8) + gates.adder(16), 536, 0.90),
}
"""40 nm: Aladdin's table as hwcomponents-library 1.0.58 has it. The first is the only multiplier
that was characterised; the second is that one by width, and an adder."""

FLIP_FLOP_FJ = 3.0
"""A bit written, at 28/22 nm: 2.5 to 3.5 fJ, stillwater-sc.github.io/domain-flow, 'switching
energy' (an estimate, as that page says)."""
FLIP_FLOP_NM = 25.0


def fitted(units: Mapping[str, Unit]) -> dict[str, tuple[float, float]]:
    """Prices of an adding and a steering gate: `area` in um2, `energy` in pJ.

    Units without steering gates leave that constant at 0.
    """
    found = {}
    for what in ("area", "energy"):
        known = [
            (unit.gates, value)
            for unit in units.values()
            if (value := unit.area_um2 if what == "area" else unit.energy_pj) is not None
        ]
        counts = np.array([(one.adding, one.steering) for one, _ in known])
        adding, steering = _least_log(counts, np.array([value for _, value in known]))
        found[what] = (adding, steering)
    return found


def _least_log(counts: Floats, values: Floats) -> tuple[float, float]:
    """Non-negative factors of least squared logarithms of ratios, by Gauss and Newton."""
    factors = nnls(counts / values[:, None], np.ones(len(values)))[0]
    for _ in range(100):
        predicted = counts @ factors
        jacobian = counts / predicted[:, None]
        wanted = jacobian @ factors - np.log(predicted / values)
        factors = 0.5 * factors + 0.5 * nnls(jacobian, wanted)[0]
    return float(factors[0]), float(factors[1])


def flip_flop_j(node_nm: float) -> float:
    """The energy of a storing gate at a node."""
    per_gate = FLIP_FLOP_FJ * 1e-15 / gates.FLIP_FLOP
    return per_gate * logic_energy_factor(FLIP_FLOP_NM, node_nm)


def fit_sram(table: pd.DataFrame) -> dict[str, object]:
    """The artefact: coefficients by quantity, and relative errors on capacities left out."""
    groups = sorted(
        {(int(n), str(c)) for n, c in zip(table.technology_nm, table.cell, strict=True)}
    )
    where = {group: index for index, group in enumerate(groups)}
    own = np.array(
        [where[int(n), str(c)] for n, c in zip(table.technology_nm, table.cell, strict=True)]
    )
    matrix = _matrix(table, own, len(groups))
    fits: dict[str, object] = {}
    for name, column in QUANTITIES.items():
        wanted = np.log(table[column].to_numpy(float))
        left_out = np.empty(len(table))
        for capacity in table.capacity_bytes.unique():
            out = (table.capacity_bytes == capacity).to_numpy()
            weights = _robust(matrix[~out], wanted[~out])
            left_out[out] = np.abs(np.expm1(matrix[out] @ weights - wanted[out]))
        weights = _robust(matrix, wanted)
        count = len(groups)
        fits[name] = {
            "own": {
                f"{node} {cell}": [float(f"{weights[count * part + i]:.6g}") for part in range(3)]
                for (node, cell), i in where.items()
            },
            "shared": [float(f"{value:.6g}") for value in weights[3 * count :]],
            "left_out_median": round(float(np.median(left_out)), 4),
            "left_out_p90": round(float(np.quantile(left_out, 0.9)), 4),
        }
    return fits


def _matrix(table: pd.DataFrame, own: npt.NDArray[np.int_], groups: int) -> Floats:
    """Intercept and slopes of each node and cell, and a shape that all share."""
    mine, shared = [], []
    for capacity, width in zip(table.capacity_bytes, table.width_bits, strict=True):
        first, second = features(int(capacity), int(width))
        mine.append(first)
        shared.append(second)
    belongs = np.eye(groups)[own]
    return np.concatenate(
        [*(belongs * np.array(mine)[:, part : part + 1] for part in range(3)), np.array(shared)], 1
    )


def _robust(matrix: Floats, wanted: Floats) -> Floats:
    """Least absolute errors, nearly: CACTI jumps from one organisation to the next."""
    found = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    for _ in range(15):
        weight = 1 / np.sqrt(np.maximum(np.abs(matrix @ found - wanted), 0.03))
        found = np.linalg.lstsq(matrix * weight[:, None], wanted * weight, rcond=None)[0]
    return np.asarray(found, np.float64)


def main() -> None:
    """Prints the constants of gates, or writes the artefact of SRAM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("gates", "sram"))
    parser.add_argument("--cacti", type=Path, help="CACTI's output, a row a memory")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "gates":
        for name, units in (("horowitz", HOROWITZ_UNITS), ("aladdin", ALADDIN_UNITS)):
            print(name, {key: [f"{v:.4g}" for v in pair] for key, pair in fitted(units).items()})
        print(f"storing {flip_flop_j(45):.4g} J at 45 nm")
        return
    if arguments.cacti is None or arguments.output is None:
        parser.error("sram needs --cacti TABLE and -o ARTEFACT")
    text = json.dumps(fit_sram(pd.read_csv(arguments.cacti)), indent=1)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
