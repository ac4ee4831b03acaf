"""One scheme or format everywhere, as an assignment."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import SUM_ROLE, Region
from dse.graph.patterns.tied import Tie
from dse.space.build import resolve_choice, searched_sites
from dse.space.problem import WIDE_BITS, Choice
from dse.space.sums import refusal, summed
from hwmodels.errors import FormatError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import SumQuantizer, split_sum
from hwmodels.formats.gguf import GGUF_FORMATS
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import region_role

WIDE = "bf16"
"""The scheme of the rest, and the meaning of no scheme at all."""

WEIGHT = "weight"
"""The role of what files of a network hold."""

LOGGER = logging.getLogger(__name__)


def uniform_assignment(
    regions: Sequence[Region], name: str, ties: Sequence[Tie] = (), *, spares: bool = True
) -> Assignment:
    """The assignment that `--format NAME` stands for: products that come quantized stay so.

    Args:
        regions: of the model.
        name: a scheme, which leaves embeddings and head in 16 bits, or a format, which
            spares nothing; one of GGUF's blocks stands at all weights and nowhere else, as
            `llama-quantize --pure` writes it.
        ties: tables of look-ups that follow the products which share them.
        spares: whether a scheme leaves embeddings and head in 16 bits.

    Raises:
        HardwareError: no such scheme or format, or an accumulator that no product can have.
    """
    chosen, wide = resolve_choice(name), resolve_choice(WIDE)
    if _is_of_files(chosen):
        LOGGER.warning(
            "%s: blocks of GGUF files, which hold weights: activations and attention stay %s",
            name, WIDE,
        )  # fmt: skip
        chosen = replace(chosen, quantizers={**wide.quantizers, WEIGHT: chosen.quantizers[WEIGHT]})
    sites: dict[str, Quantizer] = {}
    for region in regions:
        if region.is_given:
            continue
        kept = spares and is_spared(region, name)
        own = searched_sites(region)
        found = summed(wide if kept else chosen, region.kind, {site.role for site in own})
        sites |= {
            site.key: found.quantizers[site.role]
            for site in (*own, *region.sums)
            if site.role in found.quantizers
        }
    _check_sums(chosen, sites, regions)
    if name != WIDE and not any(q in chosen.quantizers.values() for q in sites.values()):
        spared = (
            ", embeddings and head" if catalog.is_scheme(split_sum(name)[0]) and spares else ""
        )
        LOGGER.warning(
            "%s: no product of this model takes it (those that come quantized%s are left out), "
            "so that everything stays %s", name, spared, WIDE,
        )  # fmt: skip
    return with_tables(Assignment.of(sites), ties)


def _is_of_files(chosen: Choice) -> bool:
    """Whether one of GGUF's blocks stands everywhere: no runtime rounds activations to them."""
    formats = {one.format for role, one in chosen.quantizers.items() if role != SUM_ROLE}
    return len(formats) == 1 and formats <= set(GGUF_FORMATS)


def _check_sums(chosen: Choice, sites: Mapping[str, Quantizer], regions: Sequence[Region]) -> None:
    """Refuses an accumulator that no product has: its name would be all that is left of it."""
    if SUM_ROLE not in chosen.quantizers or any(
        isinstance(q, SumQuantizer) for q in sites.values()
    ):
        return
    held = [region for region in regions if not region.is_given and searched_sites(region)]
    reasons = (
        refusal(chosen, region.kind, {site.role for site in searched_sites(region)})
        for region in held
    )
    found = next((reason for reason in reasons if reason), "the model has no products")
    raise FormatError(f"{chosen.name}: no product can be summed so: {found}")


def is_spared(region: Region, name: str) -> bool:
    """Whether a scheme leaves a region in 16 bits; a format spares none."""
    return region_role(region.role).is_kept and catalog.is_scheme(split_sum(name)[0])


def with_tables(assignment: Assignment, ties: Sequence[Tie]) -> Assignment:
    """The assignment in which look-ups read the copy of a product that shares their table.

    Transforms of a product's operands are no business of a look-up, whose table stays as it is.
    """
    given = assignment.as_dict()
    for tie in ties:
        first = given.get(tie.products[0].site.key)
        if first is not None and _is_followed(first):
            given.setdefault(tie.look_up.key, first)
    return Assignment.of(given)


def _is_followed(quantizer: Quantizer) -> bool:
    return not quantizer.transforms and quantizer.format.element.bits < WIDE_BITS
