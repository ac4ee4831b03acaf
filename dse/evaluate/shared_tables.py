"""Tables that look-ups share with products in a search: one copy, or two, which is said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dse.evaluate.deployment import Deployment
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.tied import Tie
from dse.space.problem import WIDE_BITS, Problem
from hwmodels.formats.element import is_plain
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.execution import execution
from hwmodels.work.work import Op, OperandName, RegionWork, Work

Choices = Mapping[str, Sequence[Mapping[OperandName, Quantizer]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTable:
    """A region that looks up a table which a product stores, and the variable that decides it."""

    table: str
    """The constant."""
    region: str
    """The region of the look-up."""
    variable: int
    product: Op
    """The product, at the sizes of a call."""
    stored_by: str
    """The product's region."""

    def stored(
        self, choices: Choices, deployment: Deployment
    ) -> tuple[Mapping[OperandName, Quantizer], ...]:
        """The table's format under each choice: as the product holds it on a deployment."""
        return tuple(self._held(asked, deployment) for asked in choices[self.stored_by])

    def _held(
        self, asked: Mapping[OperandName, Quantizer], deployment: Deployment
    ) -> Mapping[OperandName, Quantizer]:
        run = execution(self.product.quantized(asked), deployment.device, deployment.runtime)
        weight = run.op.operand("weight")
        held = weight.quantizer if weight is not None else None
        return {} if held is None or is_plain(held) else {"weight": held}


def shared_tables(
    problem: Problem,
    analysis: Analysis,
    work: Work,
    deciding: Mapping[str, int | None],
) -> tuple[SharedTable, ...]:
    """The look-ups that follow a product's choice.

    Args:
        problem: whose variables say which tables follow them.
        analysis: of the graph that costs are computed on.
        work: of one of its calls.
        deciding: the variable of each region.
    """
    by_name = {region.name: region for region in work.regions}
    found = []
    for tie, product, looked in _placed(analysis):
        variable = deciding.get(product)
        if variable is None or not problem.variables[variable].tables:
            continue
        op = _op(by_name.get(product), tie.products[0].site.node)
        if op is not None and _is_alone(by_name.get(looked)):
            found.append(
                SharedTable(
                    table=tie.look_up.value,
                    region=looked,
                    variable=variable,
                    product=op,
                    stored_by=product,
                )
            )
    return tuple(found)


def two_copies(
    problem: Problem,
    analysis: Analysis,
    deciding: Mapping[str, int | None],
    shared: Collection[str],
) -> Iterator[str]:
    """Says which tables are stored twice where a product takes fewer bits than the look-up."""
    for tie, product, _ in _placed(analysis):
        variable = deciding.get(product)
        if variable is None or tie.look_up.value in shared:
            continue
        narrow = [
            choice.name
            for choice in problem.variables[variable].choices
            for name, quantizer in choice.quantizers.items()
            if name == tie.products[0].site.role and quantizer.format.element.bits < WIDE_BITS
        ]
        if narrow:
            yield (
                f"{tie.look_up.value}: a look-up and {product} share it, and the look-up keeps "
                f"16 bits: where {product} takes {', '.join(narrow)}, both copies are stored, "
                "priced and exported"
            )


def _placed(analysis: Analysis) -> Iterator[tuple[Tie, str, str]]:
    """Each tie with the regions of its first product and of its look-up."""
    region = {node: one.name for one in analysis.regions for node in one.nodes}
    for tie in analysis.ties:
        product, looked = region.get(tie.products[0].site.node), region.get(tie.look_up.node)
        if product is not None and looked is not None:
            yield tie, product, looked


def _op(region: RegionWork | None, name: str) -> Op | None:
    ops = region.ops if region is not None else ()
    return next((op for op in ops if op.name == name), None)


def _is_alone(region: RegionWork | None) -> bool:
    """Whether a region looks up one table and multiplies nothing."""
    ops = region.ops if region is not None else ()
    return [op.kind for op in ops if any(one.is_weight for one in op.operands)] == ["embedding"]
