"""What does a number format cost in circuits, and how far is the model from what was published?

Usage: python -m studies.format_circuits.run [--cacti SRAM.csv.gz]

Writes `results/checks.csv`, a line a published figure beside the model's, and prints the README's
table. `--cacti` (CACTI's output, a row a memory) repeats the errors of the SRAM fit on capacities
left out, `results/sram.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hwmodels.circuits import gates
from hwmodels.circuits.design import mac_design
from hwmodels.circuits.gates import Gates
from hwmodels.circuits.mac import (
    float_adder,
    float_multiplier,
    mac_area_um2,
    mac_energy_j,
)
from hwmodels.circuits.shared import SharedMac, shared_energy_j
from hwmodels.circuits.sram import QUANTITIES, left_out_error, sram_access_energy_j
from hwmodels.circuits.technology import ALADDIN, area_um2, energy_j
from hwmodels.fit.circuits import HOROWITZ_UNITS, fit_sram
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.catalog import format

RESULTS = Path(__file__).parent / "results"
FREE = 0.0
"""Factor of a check that has no goal."""


@dataclass(frozen=True, slots=True)
class Check:
    """A published figure and the model's."""

    what: str
    published: float
    model: float
    factor: float = FREE
    """The model must be within this factor; 0: no goal, and the line says how far it is."""

    @property
    def off(self) -> float:
        """Model over published."""
        return self.model / self.published

    @property
    def verdict(self) -> str:
        if self.factor == FREE:
            return "–"
        met = max(self.off, 1 / self.off) <= self.factor
        return f"{'met' if met else 'missed'} (×{self.factor:g})"

    @property
    def line(self) -> str:
        """The README's line."""
        return (
            f"| {self.what} | {_digits(self.published)} | {_digits(self.model)} "
            f"| {self.off:.2f} | {self.verdict} |"
        )


def _digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def checks() -> list[Check]:
    """All of them; the fit's own points first."""
    return [*_fitted(), *_aladdin(), *_shared(), *_dac(), *_unit(), *_at_7_nm(), *_memories()]


def _fitted() -> Iterator[Check]:
    for name, unit in HOROWITZ_UNITS.items():
        picojoules = energy_j(unit.gates, 45) * 1e12
        yield Check(f"{name}, 45 nm, pJ (fitted)", unit.energy_pj, picojoules)
        if unit.area_um2 is not None:
            area = area_um2(unit.gates, 45)
            yield Check(f"{name}, 45 nm, um2 (fitted)", unit.area_um2, area)


def _aladdin() -> Iterator[Check]:
    eight = gates.multiplier(8, 8)
    circuits = {
        "16-bit over 8-bit multiplier": (gates.multiplier(16, 16), 1588 / 397, 3.17 / 0.79),
        "8-bit multiplier and 16-bit adder over the multiplier":
            (eight + gates.adder(16), 536 / 397, 0.90 / 0.79),
    }  # fmt: skip
    for name, (circuit, area, energy) in circuits.items():
        yield Check(
            f"Aladdin: {name}, area", area, area_um2(circuit, 45) / area_um2(eight, 45), 1.15
        )
        yield Check(
            f"Aladdin: {name}, energy", energy, energy_j(circuit, 45) / energy_j(eight, 45), 1.15
        )
    for name, circuit, area, energy in (
        ("8-bit multiplier", eight, 397, 0.79),
        ("16-bit multiplier", gates.multiplier(16, 16), 1588, 3.17),
    ):
        label = f"Aladdin: {name}, 40 nm"
        yield Check(f"{label}, um2, its constants", area, area_um2(circuit, 40, ALADDIN), 1.15)
        joules = energy_j(circuit, 40, ALADDIN) * 1e12
        yield Check(f"{label}, pJ, its constants", energy, joules, 1.15)
    yield Check("Aladdin: 8-bit multiplier, 40 nm, pJ, Horowitz's constants", 0.79,
                energy_j(eight, 40) * 1e12)  # fmt: skip


def _shared() -> Iterator[Check]:
    """Efficiencies of the array in GOPS/W, as energies over that of MXFP4."""
    base = shared_energy_j(SharedMac(), format("mxfp4").element, 45)
    for name, published in (("mxint8", 657), ("mxfp8", 1438), ("mxfp6", 1675)):
        energy = shared_energy_j(SharedMac(), format(name).element, 45)
        what = f"8 x 8 precision-scalable array: energy of {name} over mxfp4"
        yield Check(what, 4065 / published, energy / base, 1.5)


def _dac() -> Iterator[Check]:
    """TOPS/W of a format over another of about its accuracy; ours at equal lanes."""
    for better, other, published in (
        ("lns16_10", "fp16", 1.8), ("mxint8", "e4m3", 2.2), ("int4@g64/uint4", "e2m1", 1.9),
    ):  # fmt: skip
        designs = [mac_design(format(name), lanes=64) for name in (other, better)]
        other_j, better_j = (mac_energy_j(design, 45) for design in designs)
        yield Check(f"DAC 2025: TOPS/W of {better} over {other}", published, other_j / better_j)


def _unit() -> Iterator[Check]:
    """An FP8 and FP4 unit in 28 nm: one multiply-accumulate a cycle of E5M2 and E4M3 together."""
    both = format("e5m3")
    for name in ("fp16", "fp32"):
        design = mac_design(both, accumulated=accumulator(name), lanes=1)
        label = f"FP8 unit, 28 nm, {name} accumulator assumed"
        yield Check(f"{label}, um2", 3960, mac_area_um2(design, 28))
        yield Check(f"{label}, pJ", 2.13e-3 / 1.94e9 * 1e12, mac_energy_j(design, 28) * 1e12)


def _at_7_nm() -> Iterator[Check]:
    units: tuple[tuple[str, Gates, float], ...] = (
        ("int8 multiply", gates.multiplier(8, 8), 0.07),
        ("int32 add", gates.adder(32), 0.03),
        ("bf16 multiply", float_multiplier(8, 7), 0.21),
        ("bf16 add", float_adder(8, 7), 0.11),
        ("fp16 multiply", float_multiplier(5, 10), 0.34),
        ("fp32 multiply", float_multiplier(8, 23), 1.31),
    )
    for name, circuit, published in units:
        yield Check(f"TPU v4i: {name}, 7 nm, pJ", published, energy_j(circuit, 7) * 1e12)
    ratio = energy_j(float_multiplier(8, 7), 7) / energy_j(float_multiplier(5, 10), 7)
    yield Check("TPU v4i: bf16 over fp16 multiply, 7 nm", 0.21 / 0.34, ratio, 1.5)


def _memories() -> Iterator[Check]:
    for node, source, figures in (
        (45, "Horowitz", ((8, 10.0), (32, 20.0), (1024, 100.0))),
        (7, "TPU v4i", ((8, 7.5), (32, 8.5), (1024, 14.0))),
    ):
        for kibibytes, published in figures:
            energy = sram_access_energy_j(kibibytes * 1024, 64, node) * 1e12
            what = f"{source}: SRAM of {kibibytes} KiB, 64 bits, {node} nm, pJ"
            yield Check(what, published, energy)


def sram_errors() -> pd.DataFrame:
    """Errors on capacities left out, as the artefact states them."""
    rows = [(name, *left_out_error(name)) for name in QUANTITIES]
    return pd.DataFrame(rows, columns=["quantity", "left_out_median", "left_out_p90"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cacti", type=Path)
    arguments = parser.parse_args()
    found = checks()
    RESULTS.mkdir(exist_ok=True)
    rows = [(one.what, one.published, one.model, one.off, one.verdict) for one in found]
    columns = ["what", "published", "model", "model_over_published", "goal"]
    pd.DataFrame(rows, columns=columns).to_csv(
        RESULTS / "checks.csv", index=False, float_format="%.4g"
    )
    sram_errors().to_csv(RESULTS / "sram.csv", index=False, float_format="%.4g")
    print("\n".join(one.line for one in found))
    if arguments.cacti is not None:
        fits = fit_sram(pd.read_csv(arguments.cacti))
        print({name: fit["left_out_median"] for name, fit in fits.items()})  # type: ignore[index]


if __name__ == "__main__":
    main()
