"""A device's file drafted from a datasheet and from the most similar device that is known.

What is given keeps its source. Everything else follows the similar device by a rule that holds
within a family, and is marked `assumed`:

- rates that are not given: the same share of those that are; without any, operations a core and
  cycle as there
- bandwidths of caches: bytes a core and cycle as there
- idle power: the same share of the limit; energy an operation: the limit over the rate
- everything else: as there

A key is a figure's path in the file (`memories.dram.bandwidth`, `units.tensor_core.rates.int8`) or
one of `ALIASES`, or the name of a format, whose rate of the matrix unit it is.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hwmodels.devices.content import Content, Figure, figures_in, path_in_file
from hwmodels.devices.device import Device
from hwmodels.devices.draft_cpu import follow_rates
from hwmodels.devices.load import checked_device, device_content, device_names, load_device
from hwmodels.devices.quantity import UNITS, Kind
from hwmodels.errors import DeviceError, nearest
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.yaml_file import yaml_text

NONE = "none"
"""Answer for a rate, link or price that the device does not have."""
MEASURED = "measured"
"""A source that begins so is of a measurement."""
UNSOURCED = "given without a source"
ELEMENTS = {"fp8": "e4m3", "fp6": "e2m3", "fp4": "e2m1"}
PAIRS = {"e4m3": ["e4m3", "e5m2"], "e2m3": ["e2m3", "e3m2"]}
"""Elements that units multiply alike."""
WORDS = ("name", "title", "vendor", "family", "kind", "architecture", "year", "runtime")
EXTRA = {"price": "USD/h", "area": "mm2"}
"""Figures that a file may lack, and which nothing is assumed for."""
ALIASES = ("cores", "clock", "memory.capacity", "memory.bandwidth", "link.bandwidth", "idle",
           "limit")  # fmt: skip
VECTOR = "vector."
DROPPED = ("validation", "measurements", "corrections", "sources", *EXTRA)
"""Sections of the similar device that say nothing of another."""
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
FAR = 1e4
"""Factor by which nobody means a figure to differ from today's."""
ANSWER = re.compile(r"^\s*([0-9.eE+-]+)\s*([A-Za-z][A-Za-z0-9/]*)?\s*(?:@\s*(.*?)\s*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A figure that somebody gives; without a value it says that there is none."""

    value: float | None
    unit: str = ""
    source: str = ""

    @property
    def kind(self) -> Kind:
        """Its mark in the file."""
        if not self.source:
            return "assumed"
        return "measured" if self.source.lower().startswith(MEASURED) else "datasheet"


def answer_of(
    key: str, text: str, *, unit: str | None, usual: str, now: float | None = None
) -> Answer:
    """An answer as people write it: `864 GB/s @ datasheet, page 2`, or `none`.

    Args:
        key: What it answers, for messages.
        text: Value, unit and source; the source may be missing.
        unit: That of a value without one.
        usual: A unit that it may have, for messages.
        now: The figure's value in that unit, if it has one.

    Raises:
        DeviceError: No number, or no unit where none is assumed.
    """
    if text.strip().lower() == NONE:
        return Answer(value=None)
    found = ANSWER.match(text)
    value = _number(found.group(1)) if found else None
    if found is None or value is None:
        raise DeviceError(
            f"{key}={text}: expected a number and its unit, then @ and the source if there is "
            f"one: '864 GB/s @ datasheet, page 2'; or {NONE}"
        )
    own = found.group(2) or unit
    if own is None:
        meant = usual if now is None else _likely(value, usual, now)
        raise DeviceError(
            f"{key}={text}: no unit; write it behind the number: '{text.strip()} {meant}'"
        )
    if own not in UNITS:
        raise DeviceError(f"{key}={text}: unknown unit {own!r}{nearest(own, UNITS)}")
    return Answer(value=value, unit=own, source=found.group(3) or "")


def _likely(value: float, usual: str, now: float) -> str:
    """The usual unit, or, where a value would be far from today's, that in which it is nearest."""
    dimension, factor = UNITS[usual]
    today = now * factor

    def off(unit: str) -> float:
        return abs(math.log(value * UNITS[unit][1] / today))

    if today <= 0 or off(usual) <= math.log(FAR):
        return usual
    return min((unit for unit, (one, _) in UNITS.items() if one == dimension), key=off)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def nearest_device(
    *, kind: str | None = None, family: str | None = None, version: float | None = None
) -> str:
    """The shipped device of that kind and architecture that is nearest, the newest of equals.

    Raises:
        DeviceError: No device of that kind.
    """
    known = [load_device(name) for name in device_names()]
    chosen = [one for one in known if kind in (None, one.kind)]
    chosen = [one for one in chosen if family in (None, one.architecture.family)] or chosen
    if not chosen:
        kinds = ", ".join(sorted({one.kind for one in known}))
        raise DeviceError(f"kind={kind}: no device of that kind is known; expected {kinds}")

    def distance(one: Device) -> tuple[float, int, int]:
        far = 0.0 if version is None else abs(one.architecture.version - version)
        return far, -one.validated, -one.year

    return min(chosen, key=distance).name


class Draft:
    """A file in the making: the similar device, and what was given so far."""

    def __init__(self, like: str) -> None:
        """The draft of a device that is like a known one.

        Raises:
            DeviceError: No such device.
        """
        self.like = load_device(like)
        _, content = device_content(like)
        self.known: Content = {key: one for key, one in content.items() if key not in DROPPED}
        self.words: Content = {}
        self.answers: dict[str, Answer] = {}
        self.rates: dict[tuple[str, str], Answer] = {}
        """Rates that the similar device does not have, by unit and element."""
        self.extra: dict[str, Answer] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that may be set."""
        return (*WORDS, *ALIASES, *EXTRA, *figures_in(self.known))

    def set(self, key: str, text: str, *, unit: str | None = None, source: str = "") -> None:
        """Takes one answer.

        Raises:
            DeviceError: An unknown key, or an answer that is none.
        """
        if key in WORDS:
            self.words[key] = _word(key, text)
            return
        paths = self.paths(key)
        new = self._new_rate(key) if not paths else None
        if not paths and new is None and key not in EXTRA:
            raise DeviceError(
                f"{key}={text}: no such figure{nearest(key, self.keys) or '.'} Known: "
                f"{', '.join((*WORDS, *ALIASES, *EXTRA))}, formats such as bf16 or fp8, and the "
                f"figures of dse devices {self.like.name}"
            )
        lacking = {"unit": EXTRA.get(key, "TFLOP/s")}
        figure = figures_in(self.known)[paths[0]] if paths else lacking
        if UNITS[figure["unit"]][0] == "count":
            unit = figure["unit"]
        given = answer_of(key, text, unit=unit, usual=figure["unit"])
        if given.unit and UNITS[given.unit][0] != UNITS[figure["unit"]][0]:
            dimension = UNITS[figure["unit"]][0]
            units = ", ".join(name for name, (kind, _) in UNITS.items() if kind == dimension)
            raise DeviceError(f"{key}={text}: expected a {dimension} ({units}), got {given.unit}")
        given = Answer(value=given.value, unit=given.unit, source=given.source or source)
        if new is not None:
            self.rates[new] = given
        if key in EXTRA:
            self.extra[key] = given
        self.answers.update(dict.fromkeys(paths, given))

    def paths(self, key: str) -> list[str]:
        """Figures of the file that a key names; none for a rate that the similar device lacks."""
        figures = figures_in(self.known)
        key = path_in_file(key)
        if key in figures:
            return [key]
        matrix, vector = self._unit("matrix"), self._unit("vector")
        main = self.known["memories"][0]["name"]
        ends = {"cores": "count", "clock": "clock"}
        if key in ends:
            first = figures[f"units.{matrix}.{ends[key]}"]["value"]
            both = [f"units.{unit}.{ends[key]}" for unit in dict.fromkeys((matrix, vector))]
            return [path for path in both if figures[path]["value"] == first]
        if key in ("memory.capacity", "memory.bandwidth"):
            return [f"memories.{main}.{key.partition('.')[2]}"]
        if key == "link.bandwidth" and self.known.get("links"):
            return [f"links.{self.known['links'][0]['name']}.bandwidth"]
        if key in ("idle", "limit"):
            return [f"power.{key}"]
        for section in ("memories", "links"):
            if f"{section}.{key}" in figures:
                return [f"{section}.{key}"]
        unit = vector if key.startswith(VECTOR) else matrix
        element = _element(key)
        start = f"units.{unit}.rates."
        return [path for path in figures if path.startswith(start)
                and element in path.removeprefix(start).split(":")[0].split("|")][:1]  # fmt: skip

    def _unit(self, role: str) -> str:
        units = self.known["units"]
        found = (unit["name"] for unit in units if unit["role"] == role)
        return str(next(found, units[0]["name"]))

    def _new_rate(self, key: str) -> tuple[str, str] | None:
        element = _element(key)
        if element not in ENCODINGS:
            return None
        return self._unit("vector" if key.startswith(VECTOR) else "matrix"), element

    def figure(self, key: str) -> Figure | None:
        """The figure of a key as the file has it so far: given, or assumed by a rule.

        None for a rate that neither the similar device nor an answer has.
        """
        paths = self.paths(key)
        return figures_in(self.content()).get(paths[0]) if paths else None

    def content(self) -> Content:
        """The file's content so far."""
        content = copy.deepcopy(self.known)
        content["title"] = self.words.get("name", self.like.title)
        content |= self.words
        for path, figure in figures_in(content).items():
            self._fill(path, figure)
        for section in ("npu", "cpu"):
            _assume_groups(content.get(section), f"taken over from {self.like.name}")
        self._add_rates(content)
        content |= {key: _figure_of(one) for key, one in self.extra.items() if one.value}
        if "cpu" in content:
            content["cpu"].pop("fitted", None)
            follow_rates(content)
        _drop(content, {path for path, one in self.answers.items() if one.value is None})
        return _without_bounds(content)

    def _fill(self, path: str, figure: Figure) -> None:
        given = self.answers.get(path)
        if given is not None and given.value is not None:
            figure |= _figure_of(given)
            return
        factor, words = self._rule(path)
        figure["value"] = _number_of(figure["value"] * factor)
        figure |= {"kind": "assumed", "source": words}

    def _rule(self, path: str) -> tuple[float, str]:
        """The factor on the similar device's figure, and the rule in words."""
        like = self.like.name
        first, _, rest = path.partition(".")
        if first == "units" and ".rates." in path:
            unit = rest.partition(".")[0]
            factor, words = self._rate_factor(unit)
            return factor, f"as {like}{words}"
        main = f"memories.{self.known['memories'][0]['name']}."
        if first == "memories" and path.endswith(".bandwidth") and not path.startswith(main):
            return self._speed(self._unit("matrix")), f"bytes a core and cycle of {like}"
        if path.endswith(".sustained"):
            clock = path.removesuffix("sustained") + "clock"
            return self._ratio(clock), f"the same share of the clock as {like}"
        if path == "power.idle":
            return self._ratio("power.limit"), f"the same share of the limit as {like}"
        if path.startswith("power.per_op."):
            rate, _ = self._rate_factor(self._unit("matrix"))
            return self._ratio("power.limit") / rate, f"{like}'s times limit over rate"
        return 1.0, f"taken over from {like}"

    def _rate_factor(self, unit: str) -> tuple[float, str]:
        start = f"units.{unit}.rates."
        given = [path for path in figures_in(self.known) if path.startswith(start)
                 and self.answers.get(path, Answer(value=None)).value]  # fmt: skip
        if given:
            logs = [math.log(self._ratio(path)) for path in given]
            return math.exp(sum(logs) / len(logs)), ", in proportion to the rates that are given"
        if unit != self._unit("matrix") and f"units.{unit}.count" not in self.answers:
            return self._rate_factor(self._unit("matrix"))
        return self._speed(unit), ", operations a core and cycle"

    def _speed(self, unit: str) -> float:
        axes = [path for path in figures_in(self.known) if path.startswith(f"units.{unit}.array.")]
        return math.prod(
            self._ratio(path) for path in (f"units.{unit}.count", f"units.{unit}.clock", *axes)
        )

    def _ratio(self, path: str) -> float:
        """A figure over the similar device's; 1 where none is given."""
        given = self.answers.get(path)
        if given is None or given.value is None:
            return 1.0
        known = figures_in(self.known)[path]
        before = float(known["value"]) * UNITS[known["unit"]][1]
        return given.value * UNITS[given.unit][1] / before

    def _add_rates(self, content: Content) -> None:
        for (name, element), given in self.rates.items():
            if given.value is None:
                continue
            unit = next(one for one in content["units"] if one["name"] == name)
            integer = element.startswith("int")
            unit["rates"].append(
                {"elements": PAIRS.get(element, [element]),
                 "accumulator": "int32" if integer else "fp32", **_figure_of(given)}
            )  # fmt: skip

    def text(self, origin: str) -> str:
        """The file, which the reader of device files takes.

        Raises:
            DeviceError: It lacks a name, or has figures that are absurd or contradict each other;
                the message begins with `origin`.
        """
        if missing := [word for word in ("name",) if word not in self.words]:
            raise DeviceError(f"{origin}: {missing[0]}: missing; it is required")
        content = self.content()
        checked_device(content, origin)
        return (
            f"# Drafted by `dse devices --new` from {self.like.name}. What is marked `assumed` "
            "follows that device\n# by the rule that its source says: replace it where you know "
            f"better.\n{yaml_text(content, leaves_inline=True)}"
        )

    @property
    def open_words(self) -> tuple[str, ...]:
        """Words about the device that nobody gave, which are the similar device's."""
        return tuple(word for word in WORDS[1:-1] if word not in self.words and word != "title")


def _word(key: str, text: str) -> object:
    """A word of the file in its type."""
    text = text.strip()
    if key == "year":
        if not text.isdigit():
            raise DeviceError(f"year={text}: expected a year, such as 2026")
        return int(text)
    if key == "architecture":
        return dict(zip(("family", "version"), architecture_of(text), strict=True))
    if not text:
        raise DeviceError(f"{key}=: expected a text")
    if key == "name":
        _check_name(text)
    return text


def _check_name(text: str) -> None:
    if not NAME.fullmatch(text):
        raise DeviceError(
            f"name={text}: expected small letters, digits, - and ., such as 'my-chip'"
        )
    if text in device_names():
        raise DeviceError(
            f"name={text}: is a known device, whose measurements its predictions rest on; choose "
            "another name"
        )


def architecture_of(text: str) -> tuple[str, float]:
    """Family and version of `sm 8.9`.

    Raises:
        DeviceError: A text that is no such pair.
    """
    family, _, version = text.strip().partition(" ")
    number = _number(version.strip())
    if not family or number is None:
        raise DeviceError(
            f"architecture={text}: expected a family and its version, such as 'sm 9.0' or 'cdna 3'"
        )
    return family, number


def _element(key: str) -> str:
    name = key.removeprefix(VECTOR)
    return ELEMENTS.get(name, name)


def _figure_of(given: Answer) -> Figure:
    return {
        "value": _number_of(given.value or 0.0),
        "unit": given.unit,
        "kind": given.kind,
        "source": given.source or UNSOURCED,
    }


def _number_of(value: float) -> int | float:
    """Six digits, as a whole number where it is one."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() else rounded


def _assume_groups(content: object, source: str) -> None:
    """Marks groups of figures that have one source together: parts of an NPU, instructions."""
    if isinstance(content, list):
        for inner in content:
            _assume_groups(inner, source)
    if not isinstance(content, dict):
        return
    if "source" in content and "value" not in content:
        content |= {"kind": "assumed", "source": source}
    for inner in content.values():
        _assume_groups(inner, source)


def _drop(content: Content, paths: set[str]) -> None:
    """Takes rates and links out that the device does not have."""
    for unit in content["units"]:
        start = f"units.{unit['name']}.rates"
        unit["rates"] = _kept(unit["rates"], start, paths)
    if content.get("links"):
        content["links"] = [
            link for link in content["links"] if f"links.{link['name']}.bandwidth" not in paths
        ]


def _kept(rates: Sequence[Figure], start: str, paths: set[str]) -> list[Figure]:
    named = list(figures_in(list(rates), start))
    return [rate for path, rate in zip(named, rates, strict=True) if path not in paths]


def _without_bounds(content: Content) -> Content:
    """The content without the similar device's `low` and `high`, which are of its sources."""
    for figure in figures_in(content).values():
        figure.pop("low", None)
        figure.pop("high", None)
    return content
