"""Sweeps: the cost of one model over figures of a device (`hwmodels.devices.vary`).

Every combination of the swept values is a device of its own, priced with everything else as the
file has it, or as it is fixed beside.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.predict import Prediction, Usage, predict
from dse.report.quantities.sweep import SweepAxis, SweepPoint
from hwmodels.devices.vary import DeviceFile, Value
from hwmodels.errors import DeviceError
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.platform import Platform, load_platform, split_platform

Settings = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariedPlatform:
    """A device with some figures swept, under its runtime."""

    settings: Mapping[str, str]
    """Values of the swept keys, as they were given."""
    platform: Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The price of a model in one format on one device of a sweep."""

    settings: Mapping[str, str]
    prediction: Prediction

    @property
    def point(self) -> SweepPoint:
        """The columns of the sweep's tables."""
        cost = self.prediction.cost
        return SweepPoint(
            settings=self.settings,
            device=self.prediction.device,
            format=self.prediction.format,
            latency_s=cost.latency_s,
            low_s=cost.low_s,
            high_s=cost.high_s,
            energy_j=cost.energy_j,
            weight_bytes=cost.weight_bytes,
            peak_bytes=cost.peak_bytes,
            area_mm2=self.prediction.area_mm2,
            bound=cost.bound,
            status=cost.status,
        )


class Variation:
    """Figures of devices that are fixed, and figures that are swept."""

    def __init__(
        self, fixed: Settings | None = None, swept: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """The variation.

        Raises:
            DeviceError: A figure that is both fixed and swept, or swept over nothing.
        """
        self.fixed = dict(fixed or {})
        self.swept = {key: tuple(values) for key, values in (swept or {}).items()}
        for key, values in self.swept.items():
            if key in self.fixed:
                raise DeviceError(f"{key} is both --set and swept; keep one")
            if not values:
                raise DeviceError(f"--sweep {key}: no values; expected KEY=a,b,c")

    def check_keys(self, devices: Sequence[str]) -> None:
        """Sees to it that every device has what is varied.

        Raises:
            DeviceError: A key that no device has, or one of several devices only.
        """
        files = [DeviceFile(split_platform(device)[0]) for device in devices]
        for key in (*self.fixed, *self.swept):
            having = [file.device.name for file in files if file.has(key)]
            if lacking := [file for file in files if not file.has(key)]:
                if not having:
                    lacking[0].said(key)
                raise DeviceError(
                    f"{key}: {', '.join(having)} has it, "
                    f"{', '.join(file.device.name for file in lacking)} has not; vary it in a "
                    "command without those that lack it"
                )

    def remarks(self, devices: Sequence[str]) -> tuple[str, ...]:
        """Remarks on what is varied: the files' own values, and what says nothing any more."""
        found: list[str] = []
        for device in devices:
            file = DeviceFile(split_platform(device)[0])
            said = ", ".join(f"{key}={file.said(key)}" for key in (*self.fixed, *self.swept))
            if said:
                found.append(f"{file.device.name}'s file has {said}")
            timed = file.device.validated or file.device.measurements or file.device.corrections
            if said and timed:
                found.append(
                    f"{file.device.name}: measurements of the chip itself say nothing of a "
                    "varied one and are left out"
                )
        return tuple(found)

    def platforms(self, device: str, runtime: str | None = None) -> Iterator[VariedPlatform]:
        """Platforms of every combination of the swept values, the last key fastest.

        Args:
            device: `DEVICE` or `DEVICE:RUNTIME`, each a name or a file.
            runtime: Of a device that names none; by default its own.

        Raises:
            HardwareError: Unknown devices, runtimes or figures, or a device that contradicts
                itself.
        """
        origin, named = split_platform(device)
        file = DeviceFile(origin)
        for values in itertools.product(*self.swept.values()):
            settings = dict(zip(self.swept, values, strict=True))
            varied = file.varied(self.fixed | settings)
            driver = named or runtime or varied.default_runtime
            platform = Platform(device=varied, runtime=load_runtime(driver), runtime_origin=driver)
            yield VariedPlatform(settings=settings, platform=platform)

    def fixed_platforms(self, devices: Sequence[str], runtime: str | None) -> list[Platform]:
        """Platforms with the figures that are fixed, none of which is swept.

        Raises:
            HardwareError: As `platforms`.
        """
        if not self.fixed:
            return [load_platform(device, runtime=runtime) for device in devices]
        self.check_keys(devices)
        return [next(self.platforms(device, runtime)).platform for device in devices]

    def axes(self, devices: Sequence[str]) -> tuple[SweepAxis, ...]:
        """The swept keys with their values as numbers, in the unit of the first device's file.

        Raises:
            HardwareError: As `platforms`.
        """
        files = [DeviceFile(split_platform(device)[0]) for device in devices]
        return tuple(
            SweepAxis(
                key=key,
                unit=files[0].unit(key),
                numbers={value: files[0].number(key, value) for value in values},
                of_files={file.device.name: file.number(key, file.said(key)) for file in files},
            )
            for key, values in self.swept.items()
        )


def sweep(
    graph: Graph,
    devices: Sequence[str],
    formats: Sequence[str],
    variation: Variation,
    *,
    usage: Usage,
    runtime: str | None = None,
    assignment: Assignment | None = None,
) -> tuple[Swept, ...]:
    """The price of a model for every device, combination of swept values, and format.

    Raises:
        DseError, HardwareError: As `dse.predict.predict`, and as `Variation.platforms`; before
            anything is priced.
    """
    variation.check_keys(devices)
    varied = [one for device in devices for one in variation.platforms(device, runtime)]
    found = predict(
        graph,
        [one.platform for one in varied],
        formats,
        usage=usage,
        assignment=assignment,
    )
    each = len(found) // len(varied)
    return tuple(
        Swept(settings=varied[index // each].settings, prediction=one)
        for index, one in enumerate(found)
    )
