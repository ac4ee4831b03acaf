"""Rotary positions in a `config.json` as mlx-lm reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARAMETERS = "rope_parameters"
FULL, SLIDING = "full_attention", "sliding_attention"
MOVED = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
"""Entries that stood beside each other before transformers 5 put them into one."""


def rotary_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries on positions where configurations before transformers 5 had them.

    Most families of mlx-lm 0.32 read nothing else, and take a base of their own where they find
    none: every position would be another. What the configuration has there already stays.
    """
    given = config.get(PARAMETERS)
    if not isinstance(given, Mapping):
        return {}
    full = given.get(FULL, given)
    found = {name: full[name] for name in MOVED if name in full}
    if full.get("rope_type", "default") != "default":
        found["rope_scaling"] = {name: item for name, item in full.items() if name != "rope_theta"}
    if "rope_theta" in given.get(SLIDING, ()):
        found["rope_local_base_freq"] = given[SLIDING]["rope_theta"]
    return {name: item for name, item in found.items() if config.get(name) is None}
