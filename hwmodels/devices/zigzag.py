"""ZigZag's architecture files (`accelerator.yaml`, `mapping.yaml`) as device files, and back.

ZigZag names operands I1, I2 and O, axes D1, D2, ..., and gives sizes in bits, bandwidths in bits
a cycle and energies in pJ an access of a port's whole width; it has no clock, no power and no
formats, which are assumed here. `served_dimensions` are the axes that one instance serves: those
that are not in `per`. What it can hide behind the computation it hides, whole tensors too, so
that memories without forced double buffering are `streamed`. (KU Leuven MICAS, zigzag-dse 3.9,
`parser/accelerator_validator.py`.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from hwmodels.devices.device import Device, Memory
from hwmodels.devices.spatial import CORES, Loop
from hwmodels.errors import DeviceError
from hwmodels.tensors import TENSORS, TensorName
from hwmodels.validation import validated
from hwmodels.yaml_file import read_yaml, yaml_text

CLOCK_MHZ = 200.0
"""Of a file that has none (assumed)."""
SUM_BITS = 32
"""Of a partial sum where no register says less: ZigZag's are of the layer, not of the array."""
OPERANDS: Mapping[str, TensorName] = {"I1": "input", "I2": "weight", "O": "output"}
"""Links of operands where no mapping says others."""
UNROLLS: Sequence[tuple[Loop, ...]] = (("K", "OX", "OY"), ("C", "FY", "FX"), ("OX", "OY", "K"))
"""Loops of the first axes where no mapping says any (assumed)."""
GEMM_LOOPS: Mapping[str, Loop] = {"D": "OX", "D0": "OX", "D1": "K", "D2": "C"}
"""Loops of ZigZag's products; D are the rows of a Gemm. D2 is what is summed: `gemm_l1.yaml`
unrolls it on the axis that one output register serves."""
LOOP_WORDS = get_args(Loop)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Port:
    type: Literal["read", "write", "read_write"] = "read_write"
    bandwidth_max: Annotated[float, Field(gt=0)]
    bandwidth_min: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.bandwidth_min is not None and self.bandwidth_min > self.bandwidth_max:
            raise ValueError(
                f"bandwidth_min {self.bandwidth_min:g} is above bandwidth_max "
                f"{self.bandwidth_max:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    size: Annotated[float, Field(gt=0)]
    operands: Annotated[tuple[str, ...], Field(min_length=1)]
    ports: Annotated[tuple[_Port, ...], Field(min_length=1)]
    served_dimensions: tuple[str, ...]
    r_cost: Annotated[float, Field(ge=0)] | None = None
    w_cost: Annotated[float, Field(ge=0)] | None = None
    force_double_buffering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    dimensions: Annotated[tuple[str, ...], Field(min_length=1)]
    sizes: tuple[Annotated[int, Field(gt=0)], ...]
    unit_energy: Annotated[float, Field(ge=0)] = 0.0
    systolic_dimensions: tuple[str, ...] = ()
    is_imc: bool = False

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.dimensions):
            raise ValueError(
                f"{len(self.dimensions)} dimensions ({', '.join(self.dimensions)}) and "
                f"{len(self.sizes)} sizes"
            )
        if self.is_imc:
            raise ValueError("arrays that compute in memory (is_imc) have no model here")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Accelerator:
    name: Annotated[str, Field(min_length=1)]
    memories: Annotated[dict[str, _Memory], Field(min_length=1)]
    operational_array: _Array
    dataflows: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    name: str
    spatial_mapping: dict[str, tuple[str, ...]] = field(default_factory=dict)
    memory_operand_links: dict[str, str] = field(default_factory=dict)


_ACCELERATOR = TypeAdapter(_Accelerator)
_LAYERS = TypeAdapter(tuple[_Layer, ...])


def device_text(path: Path, mapping: Path | None = None, *, clock_mhz: float = CLOCK_MHZ) -> str:
    """The device file of a ZigZag accelerator.

    Args:
        path: `accelerator.yaml`.
        mapping: `mapping.yaml`, whose layer `default` (else its first) says which loops each axis
            unrolls and which operand is which.
        clock_mhz: Of the array.

    Raises:
        DeviceError: A file that is none of ZigZag's, computes in memory, or unrolls loops that
            a convolution does not have.
    """
    content = read_yaml(path, DeviceError, what="ZigZag accelerator", last_wins=True)
    found = validated(_ACCELERATOR, content, str(path), DeviceError)
    layer = _default_layer(mapping) if mapping else None
    links = dict(OPERANDS)
    if layer is not None and layer.memory_operand_links:
        links = _links(layer, str(mapping))
    reading = _Reading(
        found=found, links=links, layer=layer, clock_mhz=clock_mhz, path=path, mapping=mapping
    )
    return yaml_text(reading.content(), leaves_inline=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """One accelerator file on its way to a device file."""

    found: _Accelerator
    links: Mapping[str, TensorName]
    layer: _Layer | None
    clock_mhz: float
    path: Path
    mapping: Path | None

    def content(self) -> dict[str, object]:
        found, array = self.found, self.found.operational_array
        name = re.sub(r"[^a-z0-9.-]+", "-", found.name.lower()).strip("-.") or "zigzag"
        limit_w = _limit_w(found, self.clock_mhz)
        return {
            "name": name,
            "title": f"{found.name}, from a ZigZag accelerator file",
            "vendor": "unknown",
            "family": name,
            "kind": "array",
            "architecture": {"family": "array", "version": 1},
            "year": 2024,
            "sources": {
                "zigzag": f"ZigZag accelerator file {self.path.name}",
                "assumed": "not in ZigZag's file: assumed",
            },
            "units": [self._array(), self._vector()],
            "memories": [
                self._memory(label, one) for label, one in reversed(found.memories.items())
            ],
            "launch": _figure(1, "ns", "assumed"),
            "power": {
                "idle": _figure(0.001 * limit_w, "W", "assumed"),
                "limit": _figure(limit_w, "W", "assumed"),
                "per_op": [
                    {"elements": ["int8"], **_figure(energy / 2, "pJ/op", "zigzag")}
                    for energy in [array.unit_energy]
                    if energy
                ],
            },
        }

    def _array(self) -> dict[str, object]:
        array = self.found.operational_array
        rate = 2 * _places(array) * self.clock_mhz / 1e3
        laid: dict[str, object] = {"axes": self._axes()}
        if len(array.systolic_dimensions) > 1:
            # Rows, down which weights are loaded and results add up, come first.
            laid["axes"] = sorted(self._axes(), key=lambda axis: "C" not in str(axis["unrolls"]))
            laid |= {"movement": "systolic", "stationary": "weight", "load": "hidden"}
        return {
            "name": "mac_array",
            "role": "matrix",
            "count": _figure(1, "count", "assumed"),
            "clock": _figure(self.clock_mhz, "MHz", "assumed"),
            "rates": [
                {
                    "elements": ["int8"],
                    "accumulator": f"int{self._sum_bits()}",
                    **_figure(rate, "GOP/s", "zigzag"),
                }
            ],
            "array": laid,
        }

    def _sum_bits(self) -> int:
        """Bits of a partial sum: those that registers at the places have room for, at most 32."""
        dims = self.found.operational_array.dimensions
        for memory in self.found.memories.values():
            if "output" in (self.links.get(operand) for operand in memory.operands):
                in_place = bool(set(dims) - set(memory.served_dimensions))
                width = min(memory.size, max(port.bandwidth_max for port in memory.ports))
                return min(round(width), SUM_BITS) if in_place else SUM_BITS
        return SUM_BITS

    def _vector(self) -> dict[str, object]:
        rate = max(self.found.operational_array.sizes) * self.clock_mhz / 1e3
        return {
            "name": "vector_unit",
            "role": "vector",
            "count": _figure(1, "count", "assumed"),
            "clock": _figure(self.clock_mhz, "MHz", "assumed"),
            "rates": [
                {
                    "elements": ["int8", "int16", "fp32"],
                    "accumulator": "fp32",
                    **_figure(rate, "GOP/s", "assumed"),
                }
            ],
        }

    def _axes(self) -> list[dict[str, object]]:
        array, layer = self.found.operational_array, self.layer
        mapped = layer is not None and layer.spatial_mapping
        written = layer.spatial_mapping if layer and mapped else self.found.dataflows
        origin = self.mapping if mapped else self.path
        axes: list[dict[str, object]] = []
        for place, (name, size) in enumerate(zip(array.dimensions, array.sizes, strict=True)):
            words = [text.split(",")[0].strip() for text in written.get(name, ())]
            loops = [GEMM_LOOPS.get(word, word) for word in words]
            if unknown := [loop for loop in loops if loop not in LOOP_WORDS]:
                raise DeviceError(
                    f"{origin}: {name}: loop {unknown[0]!r} is none of a convolution or product; "
                    f"expected {', '.join((*LOOP_WORDS, *GEMM_LOOPS))}"
                )
            unrolls = loops or list(UNROLLS[min(place, len(UNROLLS) - 1)])
            axes.append(
                {"name": name, "size": _figure(size, "count", "zigzag"), "unrolls": unrolls}
            )
        return axes

    def _bandwidth(self, bits: float) -> dict[str, object]:
        """Of so many bits a cycle."""
        return _figure(bits / 8 * self.clock_mhz / 1e3, "GB/s", "zigzag")

    def _memory(self, name: str, memory: _Memory) -> dict[str, object]:
        for operand in memory.operands:
            if operand not in self.links:
                raise DeviceError(
                    f"{self.path}: memories.{name}.operands: unknown operand {operand!r}; "
                    f"expected {', '.join(self.links)}"
                )
        dims = self.found.operational_array.dimensions
        # Main memory is one, whatever it says (`ascend_like.yaml` leaves two dimensions out).
        main = name == list(self.found.memories)[-1]
        per = [dim for dim in dims if not main and dim not in memory.served_dimensions]
        # A port that does both makes one of all; main memory has one (`Memory.write_bandwidth`).
        ports: dict[str, float] = {"read": 0.0, "write": 0.0, "read_write": 0.0}
        for port in memory.ports:
            ports[port.type] += port.bandwidth_max
        apart = not main and not ports["read_write"] and min(ports["read"], ports["write"]) > 0
        bits = ports["read"] if apart else sum(ports.values())
        width = max(port.bandwidth_max for port in memory.ports)
        written: dict[str, object] = {
            "name": name,
            "holds": [self.links[operand] for operand in memory.operands],
            "per": per,
            "double_buffered": memory.force_double_buffering,
            "streamed": not main and not memory.force_double_buffering,
            "waits_for_room": not main and not memory.force_double_buffering,
            "capacity": _figure(memory.size / 8, "B", "zigzag"),
            "bandwidth": self._bandwidth(bits),
        }
        if apart:
            written["write_bandwidth"] = self._bandwidth(ports["write"])
        for key, cost in (("energy", memory.r_cost), ("write_energy", memory.w_cost)):
            if cost:
                written[key] = _figure(cost / (width / 8), "pJ/B", "zigzag")
        # Ports share one word here, the narrowest; bits below a byte round nothing.
        words = [port.bandwidth_min for port in memory.ports if port.bandwidth_min]
        if words and min(words) >= 8:
            written["word"] = _figure(min(words) / 8, "B", "zigzag")
        return written


def zigzag_text(device: Device) -> str:
    """The `accelerator.yaml` of a spatial array; its cores are one more dimension.

    Every level has one port for reads and writes, as wide as its bandwidth.

    Raises:
        DeviceError: A device without an array.
    """
    unit = device.unit("matrix")
    if unit.array is None:
        raise DeviceError(f"{device.name}: only devices with an `array` are ZigZag accelerators")
    axes = {axis.name: round(axis.size.value) for axis in unit.array.axes}
    if unit.count.value > 1:
        axes[CORES] = round(unit.count.value)
    dims = {name: f"D{index + 1}" for index, name in enumerate(axes)}
    array: dict[str, object] = {
        "unit_energy": 2e12 * device.energy_per_op_j(unit.rates[0].weight[0]),
        "unit_area": 0.0,
        "dimensions": list(dims.values()),
        "sizes": list(axes.values()),
    }
    if unit.array.movement == "systolic":
        array["systolic_dimensions"] = [dims[axis.name] for axis in unit.array.axes]
    return yaml_text(
        {
            "name": device.name,
            "memories": {
                memory.name: _zigzag_memory(memory, unit.clock_hz.value, dims)
                for memory in reversed(device.memories)
            },
            "operational_array": array,
            "dataflows": {
                dims[axis.name]: [f"{axis.unrolls[0]}, {round(axis.size.value)}"]
                for axis in unit.array.axes
            },
        }
    )


def _zigzag_memory(memory: Memory, clock_hz: float, dims: Mapping[str, str]) -> dict[str, object]:
    names = {tensor: operand for operand, tensor in OPERANDS.items()}
    held = [names[tensor] for tensor in TENSORS if tensor in memory.holds]
    ports = _zigzag_ports(memory, clock_hz, held)
    bits = max(bits for _, bits, _ in ports)
    read = memory.energy_per_byte_j.value if memory.energy_per_byte_j else 0.0
    write = memory.write_energy_per_byte_j
    word = memory.word_bytes
    return {
        "size": round(8 * memory.capacity_bytes.value),
        "r_cost": read * 1e12 * bits / 8,
        "w_cost": (read if write is None else write.value) * 1e12 * bits / 8,
        "area": 0.0,
        "latency": 1,
        "operands": held,
        "ports": [
            {
                "name": f"{kind}_port_1",
                "type": kind,
                "bandwidth_min": min(round(8 * word.value) if word else 8, width),
                "bandwidth_max": width,
                "allocation": allocation,
            }
            for kind, width, allocation in ports
        ],
        "served_dimensions": [dim for name, dim in dims.items() if name not in memory.per],
        "force_double_buffering": memory.double_buffered is True,
    }


def _zigzag_ports(
    memory: Memory, clock_hz: float, held: Sequence[str]
) -> list[tuple[str, int, list[str]]]:
    """Ports of a memory: what they do, bits a cycle, and of which operands in which direction.

    From and to the level above (high) and below (low).
    """

    def bits(bandwidth: float) -> int:
        return max(round(8 * bandwidth / clock_hz), 1)

    def allocated(ways: Sequence[str]) -> list[str]:
        sums_only = ("fl", "th")
        return [f"{one}, {way}" for one in held for way in ways
                if one == "O" or way not in sums_only]  # fmt: skip

    own, write = bits(memory.bandwidth_bytes_per_s.value), memory.write_bandwidth_bytes_per_s
    if write is None:
        return [("read_write", own, allocated(("fh", "tl", "fl", "th")))]
    return [
        ("read", own, allocated(("tl", "th"))),
        ("write", bits(write.value), allocated(("fh", "fl"))),
    ]


def _default_layer(path: Path) -> _Layer:
    content = read_yaml(path, DeviceError, what="ZigZag mapping", last_wins=True)
    layers = validated(_LAYERS, content, str(path), DeviceError)
    if not layers:
        raise DeviceError(f"{path}: expected a list of layers, got none")
    return next((one for one in layers if one.name == "default"), layers[0])


def _links(layer: _Layer, origin: str) -> dict[str, TensorName]:
    """Operand of the memories -> tensor, by the links of a layer (`W: I2`)."""
    tensors: Mapping[str, TensorName] = {"I": "input", "W": "weight", "O": "output"}
    found = {
        operand: tensors[name]
        for name, operand in layer.memory_operand_links.items()
        if name in tensors
    }
    if len(found) != len(OPERANDS):
        raise DeviceError(
            f"{origin}: layer {layer.name!r}: memory_operand_links: expected I, W and O, got "
            f"{', '.join(layer.memory_operand_links) or 'none'}"
        )
    return found


def _limit_w(found: _Accelerator, clock_mhz: float) -> float:
    """More than everything at its full rate draws: ZigZag has no limit of power."""
    array = found.operational_array
    joules = _places(array) * array.unit_energy * 1e-12
    for memory in found.memories.values():
        instances = 1
        for dim, size in zip(array.dimensions, array.sizes, strict=True):
            instances *= 1 if dim in memory.served_dimensions else size
        cost = max(memory.r_cost or 0.0, memory.w_cost or 0.0) * 1e-12
        joules += cost * instances * len(memory.ports)
    floor = 2 * _places(array) * clock_mhz * 1e6 / 1e13
    return max(2 * joules * clock_mhz * 1e6, floor, 1e-3)


def _places(array: _Array) -> int:
    places = 1
    for size in array.sizes:
        places *= size
    return places


def _figure(value: float, unit: str, source: str) -> dict[str, object]:
    rounded = float(f"{value:.9g}")
    return {
        "value": int(rounded) if rounded.is_integer() else rounded,
        "unit": unit,
        "kind": "assumed",
        "source": source,
    }
