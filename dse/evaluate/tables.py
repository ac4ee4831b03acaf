"""Tables of look-ups as a deployment stores them: with the product that shares them, or apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dse.evaluate.deployment import Deployment
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.tied import Tie
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.execution import execution
from hwmodels.tables.network import PhaseWork
from hwmodels.work.work import OperandName, Work

PLAIN = "16 bits"
WIDE_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTables:
    """Formats of look-ups' tables on a deployment."""

    formats: tuple[tuple[str, Quantizer], ...]
    """By node of the look-up, those with a format."""
    remarks: tuple[str, ...] = ()

    def applied(self, phases: Sequence[PhaseWork]) -> tuple[PhaseWork, ...]:
        """The phases with their look-ups' tables stored so."""
        if not self.formats:
            return tuple(phases)
        tables = dict(self.formats)
        return tuple(replace(phase, work=phase.work.with_tables(tables)) for phase in phases)


def stored_tables(
    analysis: Analysis,
    work: Work,
    operands: Mapping[str, Mapping[OperandName, Quantizer]],
    assignment: Assignment,
    deployment: Deployment,
) -> StoredTables:
    """The formats of tables under an assignment.

    A table that has the format of a product which shares it is that product's copy, in 16 bits
    where the deployment has no kernel for the product.

    Args:
        analysis: of the model.
        work: of a call.
        operands: formats of products by region.
        assignment: all formats by site.
        deployment: what runs it.
    """
    given = assignment.as_dict()
    sites = [site for site in analysis.tables if site.key in given]
    found: dict[str, Quantizer | None] = {site.node: given[site.key] for site in sites}
    held = _held(analysis.ties, work, operands, deployment)
    for tie in analysis.ties:
        asked = found.get(tie.look_up.node)
        for reader in tie.products:
            if asked is not None and given.get(reader.site.key) == asked:
                found[tie.look_up.node] = held.get(reader.site.node)
                break
    return StoredTables(
        formats=tuple(sorted((name, q) for name, q in found.items() if q is not None)),
        remarks=tuple(
            remark for tie in analysis.ties for remark in [_apart(tie, found, held)] if remark
        ),
    )


def _held(
    ties: Sequence[Tie],
    work: Work,
    operands: Mapping[str, Mapping[OperandName, Quantizer]],
    deployment: Deployment,
) -> dict[str, Quantizer | None]:
    """The formats in which products hold the weights that they share, by node, as they run."""
    wanted = {reader.site.node for tie in ties for reader in tie.products}
    found: dict[str, Quantizer | None] = {}
    for region in work.regions if wanted else ():
        asked = region.quantized(operands.get(region.name, {}))
        for op in asked.ops:
            if op.name in wanted:
                run = execution(op, deployment.device, deployment.runtime)
                weight = run.op.operand("weight")
                found[op.name] = weight.quantizer if weight is not None else None
    return found


def _apart(
    tie: Tie, tables: Mapping[str, Quantizer | None], held: Mapping[str, Quantizer | None]
) -> str | None:
    """Says that a shared table is stored more than once, and in which formats."""
    readers = {tie.look_up.key: _name(tables.get(tie.look_up.node))}
    readers |= {one.site.key: _name(held.get(one.site.node)) for one in tie.products}
    if len(set(readers.values())) == 1:
        return None
    uses = ", ".join(f"{name} for {key}" for key, name in readers.items())
    return (
        f"{tie.look_up.value}: stored once in each format: {uses}; one copy serves them all "
        "where an assignment gives them the same"
    )


def _name(quantizer: Quantizer | None) -> str:
    plain = quantizer is None or quantizer.format.element.bits >= WIDE_BITS
    return PLAIN if plain or quantizer is None else quantizer.name
