"""One scheme or format everywhere, as an assignment."""

from __future__ import annotations

from collections.abc import Sequence

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Region
from dse.space.build import resolve_choice, searched_sites
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import region_role

WIDE = "bf16"
"""The scheme of the rest, and the meaning of no scheme at all."""


def uniform_assignment(regions: Sequence[Region], name: str) -> Assignment:
    """The assignment that `--format NAME` stands for.

    Args:
        regions: of the model.
        name: a scheme, which leaves embeddings and head in 16 bits, or a format, which
            spares nothing.

    Raises:
        HardwareError: no such scheme or format.
    """
    chosen, wide = resolve_choice(name), resolve_choice(WIDE)
    sites: dict[str, Quantizer] = {}
    for region in regions:
        kept = region_role(region.role).is_kept and catalog.is_scheme(name)
        quantizers = (wide if kept else chosen).quantizers
        sites |= {
            site.key: quantizers[site.role]
            for site in searched_sites(region)
            if site.role in quantizers
        }
    return Assignment.of(sites)
