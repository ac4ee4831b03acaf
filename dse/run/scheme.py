"""Schemes in words and colours: the same short name and the same colour everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WIDE = ("fp32", "tf32", "bf16", "fp16")
"""Choices that leave a region unquantised: greys."""

GREYS = ("#b8bec6", "#d3d8de", "#9aa2ac", "#e4e7eb")

# Okabe and Ito, "Color Universal Design" (2008), without black; then three of Paul Tol's "muted".
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
    "#882255", "#332288", "#999933", "#661100",
)  # fmt: skip


def short_names(choices: Sequence[str]) -> dict[str, str]:
    """The shortest name of every choice that still tells it from the others.

    `nvfp4` for `w4a4_nvfp4`: the widths go where the format's name says them, and stay where
    weight and activation differ (`w4a16`). `_dynamic` goes where nothing else has the name.
    """
    bare = {choice: re.sub(r"^w(\d+)a\1_", "", choice) for choice in choices}
    plain = {choice: name.removesuffix("_dynamic") for choice, name in bare.items()}
    counts = Counter(plain.values())
    return {choice: name if counts[name] == 1 else bare[choice] for choice, name in plain.items()}


def colours(choices: Sequence[str]) -> dict[str, str]:
    """A colour by choice: greys for unquantised ones, the others in the order of the space."""
    greys, hues = iter(GREYS * len(choices)), iter(COLOURS * len(choices))
    return {choice: next(greys if choice in WIDE else hues) for choice in choices}


def formats_phrase(names: Sequence[str]) -> str:
    """Formats with the number of their variables, the most frequent first: `nvfp4 18, bf16 7`."""
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())
