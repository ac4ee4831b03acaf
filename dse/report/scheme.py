"""Schemes in words and colours: the same short name and the same colour everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

WIDE = ("fp32", "tf32", "bf16", "fp16")
"""Choices that leave a region unquantised: greys."""

GREYS = ("#b8bec6", "#d3d8de", "#9aa2ac", "#e4e7eb")

# Okabe and Ito, "Color Universal Design" (2008), without black; then three of Paul Tol's "muted".
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
    "#882255", "#332288", "#999933",
)  # fmt: skip


def short(choice: str) -> str:
    """`nvfp4` for `w4a4_nvfp4`: the widths go where the name of the format says them.

    They stay where weight and activation differ: `w4a8_fp8`, `w4a16`.
    """
    match = re.fullmatch(r"w(\d+)a\1_(.+)", choice)
    return match[2] if match else choice


def colours(choices: Sequence[str]) -> dict[str, str]:
    """A colour by choice: greys for unquantised ones, the others in the order of the space."""
    greys, hues = iter(GREYS * len(choices)), iter(COLOURS * len(choices))
    return {choice: next(greys if choice in WIDE else hues) for choice in choices}


def formats_phrase(chosen: Mapping[str, str]) -> str:
    """Which formats, on how many variables, the most frequent first: `nvfp4 18/25, bf16 7`."""
    counts = Counter(short(choice) for choice in chosen.values()).most_common()
    first, *others = (f"{name} {count}" for name, count in counts)
    return ", ".join([f"{first}/{len(chosen)}", *others])


def by_role(chosen: Mapping[str, str], roles: Mapping[str, str]) -> list[str]:
    """One line a role, for a hover box: `qkv: nvfp4 ×5, bf16 ×1`.

    Args:
        chosen: variable to choice.
        roles: variable to role.
    """
    grouped: dict[str, Counter[str]] = {}
    for variable, choice in chosen.items():
        grouped.setdefault(roles.get(variable, variable), Counter())[short(choice)] += 1
    return [
        f"{role}: " + ", ".join(f"{name} ×{count}" for name, count in counter.most_common())
        for role, counter in grouped.items()
    ]
