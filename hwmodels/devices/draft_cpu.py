"""Instructions of a processor that is drafted: those that its rates are the rates of."""

from __future__ import annotations

import copy
from typing import Any

from hwmodels.devices.quantity import UNITS

Content = dict[str, Any]
DIGITS = 6


def follow_rates(content: Content) -> None:
    """Gives every rate of a drafted processor instructions of that many operations a cycle.

    Those that the similar device has for the elements are scaled, the slower ones for them
    alike; an element that it has none for gets a copy of its first ones.
    """
    instructions, done = content["cpu"]["instructions"], list[Content]()
    for unit in content["units"]:
        cycles = _base(unit["count"]) * _base(unit["clock"])
        for rate in unit["rates"]:
            macs = _base(rate) / cycles / 2
            weight, input_ = (
                next(iter(rate.get(name) or rate["elements"])) for name in ("weight", "input")
            )
            alike = [one for one in instructions
                     if weight in one["weight"] and input_ in one["input"]
                     and one["accumulator"] == rate["accumulator"]]  # fmt: skip
            if not alike:
                alike = [copy.deepcopy(instructions[0])]
                alike[0] |= {"name": weight, "weight": [weight], "input": [input_],
                             "accumulator": rate["accumulator"]}  # fmt: skip
                alike[0].pop("clock", None)
                instructions += alike
            if all(any(one is known for known in done) for one in alike):
                # The vector unit's rate is that of instructions which the matrix unit has set.
                fastest = max(one["macs"] * _clocks(one, unit) for one in alike)
                rate["value"] = float(f"{rate['value'] * fastest / macs:.{DIGITS}g}")
                continue
            done += alike
            factor = macs / max(one["macs"] * _clocks(one, unit) for one in alike)
            for one in alike:
                one["macs"] = float(f"{one['macs'] * factor:.{DIGITS}g}")


def _clocks(one: Content, unit: Content) -> float:
    """The instructions' own clock over the unit's."""
    return _base(one["clock"]) / _base(unit["clock"]) if "clock" in one else 1.0


def _base(figure: Content) -> float:
    return float(figure["value"]) * UNITS[figure["unit"]][1]
