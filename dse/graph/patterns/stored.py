"""Tensors between products, as runtimes keep them that store every tensor in one format.

An integer runtime reads sums and means from memory, as it reads what it multiplies. What only
moves values, or takes the larger ones, commutes with rounding: behind it the reader's format
counts. Where readers take a tensor as several (as it is, and behind a Relu), or kernels with
choices of their own read it, it is stored for itself first; so it is where it leaves the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import MEANS, MERGES, ORDERLY
from dse.graph.ir.site import Region, Site
from dse.graph.patterns.contraction import is_contracting
from dse.graph.patterns.flow import Flow
from hwmodels.work.role import SEARCHED_ROLES

ROLE = "stored"
OTHERWISE = ""
"""Stands for a reader that is neither a product nor a sum: a norm, an activation, the caller."""


def stored_sites(
    flow: Flow,
    regions: Sequence[Region],
    sites: Iterable[Site],
    inside: Set[str],
) -> Mapping[str, tuple[Site, ...]]:
    """The sites of stored tensors by the region whose format they have.

    Sums, products of activations and means read what they combine (`in0`, ...) in their own
    region's format. A tensor that is stored for itself (`out0`) has that of the first region that
    reads it, or of its own where it leaves the network. A region that multiplies nothing has the
    format of the first one behind it that does, else of the last one before it.

    Args:
        flow: of the graph.
        regions: its partition, in order of execution.
        sites: all of the graph, those of products among them.
        inside: nodes of attentions, norms and activations that are one kernel.
    """
    tensors = _Tensors(flow=flow, inside=inside, deciding=_deciding(flow, regions))
    place = {region.name: at for at, region in enumerate(regions)}
    by_key = {site.key: site for site in sites}
    found: dict[str, list[Site]] = {}
    for node in flow.nodes:
        for key, candidates in tensors.keys(node):
            region = min(candidates, key=place.__getitem__, default=None)
            if region is not None and key in by_key:
                found.setdefault(region, []).append(replace(by_key[key], role=ROLE))
    return {name: tuple(members) for name, members in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensors:
    """Readers of values."""

    flow: Flow
    inside: Set[str]
    deciding: Mapping[str, str]
    """Region by node, where there is one with a choice."""
    ends: dict[str, frozenset[str]] = field(default_factory=dict)
    """Values as which readers take a value, once it is moved about."""

    def __post_init__(self) -> None:
        for node in reversed(self.flow.nodes):
            for value in node.outputs:
                self.ends[value] = frozenset(self._read(value))

    def keys(self, node: Node) -> Iterator[tuple[str, set[str]]]:
        """Sites at a node, each with the regions of which the first decides."""
        own = {self.deciding[node.name]} if node.name in self.deciding else set()
        if node.name in self.inside:
            return
        combines = _combines(self.flow, node)
        if combines:
            for index, value in enumerate(node.inputs):
                if self.flow.is_signal(value):
                    yield f"{node.name}/in{index}", own
        value = node.outputs[0]
        ends = self.ends[value]
        made = combines or is_contracting(node)
        if made and (len(ends) > 1 or ends == {OTHERWISE}):
            yield f"{node.name}/out0", set().union(*map(self._users, ends)) or own
        elif len(self._users(value)) > 1:
            yield f"{node.name}/out0", self._users(value)

    def _users(self, value: str) -> set[str]:
        """Regions with a choice whose products and sums read a value as it is."""
        return {
            self.deciding[reader.name]
            for reader in self.flow.consumers(value)
            if reader.name in self.deciding and (is_contracting(reader) or self._is_sum(reader))
        }

    def _is_sum(self, node: Node) -> bool:
        return node.name not in self.inside and _combines(self.flow, node)

    def _read(self, value: str) -> Iterator[str]:
        readers = self.flow.consumers(value)
        if value in self.flow.graph.outputs:
            yield OTHERWISE
        elif len(readers) == 1 and self._is_epilogue(readers[0]):
            return  # the kernel that makes it goes on with it
        for reader in readers:
            if is_contracting(reader) or self._is_sum(reader):
                yield value
            elif reader.op_type in ORDERLY and reader.name not in self.inside:
                for output in reader.outputs:
                    yield from self.ends.get(output, ())
            else:
                yield OTHERWISE

    def _is_epilogue(self, node: Node) -> bool:
        """Whether a node adds or multiplies constants: a bias, a folded norm."""
        affine = node.op_type in MERGES and len(self.flow.signal_inputs(node)) == 1
        return node.name not in self.inside and (affine or node.op_type == "BatchNormalization")


def _combines(flow: Flow, node: Node) -> bool:
    """Whether a node is a sum or a mean of stored tensors; a constant addend is a bias."""
    several = node.op_type in MERGES and len(flow.signal_inputs(node)) > 1
    return several or node.op_type in MEANS


def _deciding(flow: Flow, regions: Sequence[Region]) -> Mapping[str, str]:
    """The region with a choice whose format a node's tensors have, by node."""
    owner = {node: region.name for region in regions for node in region.nodes}
    decided = {
        region.name
        for region in regions
        if not region.is_given and any(site.role in SEARCHED_ROLES for site in region.sites)
    }
    behind: dict[str, str] = {}
    before: dict[str, str] = {}
    for node in reversed(flow.nodes):
        _passed(owner[node.name], flow.readers(node), owner, decided, behind)
    for node in flow.nodes:
        makers = (flow.producer(value) for value in flow.signal_inputs(node))
        _passed(owner[node.name], filter(None, makers), owner, decided, before)
    chosen = before | behind | {name: name for name in decided}
    return {node: chosen[region] for node, region in owner.items() if region in chosen}


def _passed(
    region: str,
    neighbours: Iterable[Node],
    owner: Mapping[str, str],
    decided: Set[str],
    found: dict[str, str],
) -> None:
    """Notes the first neighbour's region that decides, or what that one has noted itself."""
    for neighbour in neighbours:
        other = owner[neighbour.name]
        known = other if other in decided else found.get(other)
        if other != region and known is not None:
            found.setdefault(region, known)
            return
