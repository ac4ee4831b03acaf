"""All that is found in one graph, found once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dse.graph.ir.flat import Flat, flatten
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Region, Site, sums_of
from dse.graph.patterns.attention import Attention, attentions
from dse.graph.patterns.experts import Expert, experts
from dse.graph.patterns.flow import Flow, flow_of
from dse.graph.patterns.given import Given, given_formats
from dse.graph.patterns.norm import Norm, norms
from dse.graph.patterns.partition import Partition, partition
from dse.graph.patterns.pointwise import Pointwise, pointwise
from dse.graph.patterns.regions import regions
from dse.graph.patterns.sites import (
    contraction_sites,
    dequantized_nodes,
    other_sites,
    quantized_nodes,
)
from dse.graph.patterns.stored import stored_sites
from dse.graph.patterns.tied import Tie, ties
from dse.graph.patterns.twins import with_twins


@dataclass(frozen=True, eq=False)
class Analysis:
    """A graph with its findings; each is made when it is first asked for, and kept.

    Whoever opens a model makes one and passes it down: sites, regions, lowering and execution
    then speak of the same findings, and a graph of thousands of nodes is searched once.

    Raises:
        GraphError: By every finding: the rank of a contracting node's operand is unknown.
    """

    graph: Graph
    apart: bool = False
    """Whether products that read one input are regions of their own, as runtimes without fused
    siblings execute them."""

    @cached_property
    def flat(self) -> Flat:
        """The graph with the bodies of its control flow spliced in: what is searched."""
        return flatten(self.graph)

    @cached_property
    def flow(self) -> Flow:
        """The nodes that carry the signal, told from those that prepare sizes and masks."""
        return flow_of(self.flat.graph)

    @cached_property
    def attentions(self) -> tuple[Attention, ...]:
        """Every attention, in topological order."""
        return attentions(self.flow)

    @cached_property
    def norms(self) -> tuple[Norm, ...]:
        """Every norm of rows, in topological order."""
        return norms(self.flow)

    @cached_property
    def activations(self) -> tuple[Pointwise, ...]:
        """Every activation that is written out as several nodes, in topological order."""
        return tuple(
            group for group in pointwise(self.flow, self.flow.nodes) if len(group.nodes) > 1
        )

    @cached_property
    def experts(self) -> Mapping[str, Expert]:
        """The products of a mixture of experts by node name, in topological order."""
        return experts(self.flow)

    @cached_property
    def partition(self) -> Partition:
        """Drafts of the regions, in an order of execution."""
        return partition(self.flow, self.attentions, self.norms, self.experts, apart=self.apart)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The kernels of a compiling runtime, in an order of execution.

        Every node is in exactly one region. Side computation (sizes, masks, rotary tables, folded
        weights) is the last region, `shape`, if there is any.
        """
        found = regions(self.partition, self.sites, self._multiplied)
        return with_twins(found, self.flat, self.flow)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The operands and results of all contracting nodes, in topological order."""
        return tuple(contraction_sites(self.flow, self.attentions))

    @cached_property
    def given(self) -> Mapping[tuple[str, int], Given]:
        """Formats that operands of products and tables come in, by node and input."""
        inside = frozenset(name for attention in self.attentions for name in attention.nodes)
        return given_formats(self.flow, inside)

    @cached_property
    def quantized(self) -> tuple[str, ...]:
        """Contracting nodes that the model's author quantized: they have no sites."""
        return quantized_nodes(self.flow)

    @cached_property
    def dequantized(self) -> tuple[str, ...]:
        """Contracting nodes all of whose operands come from DequantizeLinear."""
        return tuple(name for name in dequantized_nodes(self.flow) if name in self._multiplied)

    @cached_property
    def rounded(self) -> tuple[str, ...]:
        """Contracting nodes that read DequantizeLinear, and are no products of integers."""
        return tuple(n for n in dequantized_nodes(self.flow) if n not in self._multiplied)

    @cached_property
    def _multiplied(self) -> frozenset[str]:
        """Nodes whose activations come in a format."""
        by_name = self.flow.graph.by_name
        found = (n for n, at in self.given if self.flow.is_signal(by_name[n].inputs[at]))
        return frozenset(found)

    @cached_property
    def other_sites(self) -> tuple[Site, ...]:
        """The float operands and results of signal nodes that do not contract.

        They sum over no axis. Constants (gains, biases, tables) have the role `weight`.
        """
        return tuple(other_sites(self.flow))

    @cached_property
    def sums(self) -> tuple[Site, ...]:
        """The sums of contracting nodes, where an assignment may name accumulators."""
        return sums_of(self.sites)

    @cached_property
    def every_site(self) -> Mapping[str, Site]:
        """All that an assignment can name, by key."""
        return {site.key: site for site in (*self.sites, *self.other_sites, *self.sums)}

    @cached_property
    def tables(self) -> tuple[Site, ...]:
        """The tables of look-ups: of the other sites those whose scales lie along an axis."""
        return tuple(site for site in self.other_sites if site.contraction_axes)

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """The tables whose rows products multiply, too."""
        return ties(self.flow, self.tables, self.sites)

    @cached_property
    def stored(self) -> Mapping[str, tuple[Site, ...]]:
        """Tensors between products by the region whose format they have, where all are stored."""
        kernels = [attention.nodes for attention in self.attentions]
        kernels += [frozenset(norm.nodes) for norm in self.norms]
        kernels += [frozenset(node.name for node in one.nodes) for one in self.activations]
        inside = frozenset().union(*kernels)
        return stored_sites(self.flow, self.regions, (*self.sites, *self.other_sites), inside)

    @cached_property
    def with_tables(self) -> Mapping[str, Site]:
        """The sites of contracting nodes, and tables of look-ups that share one, by key."""
        return {**self.by_key, **{tie.look_up.key: tie.look_up for tie in self.ties}}

    def sites_with(self, keys: Iterable[str]) -> Mapping[str, Site]:
        """The sites of contracting nodes by key, and the other ones that an assignment names."""
        wanted = set(keys) - self.by_key.keys()
        beside = (*self.sums, *self.other_sites) if wanted else ()
        others = {site.key: site for site in beside if site.key in wanted}
        return {**self.by_key, **others} if wanted else self.by_key

    @cached_property
    def by_key(self) -> Mapping[str, Site]:
        """The sites of contracting nodes by key."""
        return {site.key: site for site in self.sites}
