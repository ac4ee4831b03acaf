"""Findings about weights: roundings, ranges, corrected means, smoothing, equalisation.

All is found with the full-precision inputs of a layer, if it needs data at all. So what a weight
takes depends on its own quantizer alone, and not on the rest of an assignment; equalisation is
settled between neighbours before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.weights.blocks import Block, blocks_of
from dse.execute.weights.equalize import Equalization, equalization, sides_of
from dse.execute.weights.moments import Moments, observe_moments, together
from dse.execute.weights.need import Wish
from dse.execute.weights.product import Product, products_of
from dse.execute.weights.reconstruct import Candidate, beside, reconstructed
from dse.execute.weights.smooth import smoothing_of, smoothing_strength
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Node
from dse.graph.ir.operators import LAYOUT
from dse.graph.ir.site import Site
from dse.graph.patterns.tied import Reader
from dse.numerics import (
    QuantizerState,
    calibrated_state,
    damped,
    held_out_damping,
    held_out_macs,
    learned_macs,
    learned_state,
    load_states,
    output_range,
    output_range_macs,
    quantize,
    save_states,
    with_gains,
)
from dse.numerics.precision import exact_float32
from dse.numerics.scales import largest_finite, tensor_scale_of
from hwmodels.formats.quantizer import Quantizer

MEMORY_BYTES = 1 << 30
"""For outer products of inputs at one time; more layers take more passes over the data."""
FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ByBlock:
    """A weight that waits for its block."""

    wish: Wish
    state: QuantizerState
    candidate: Candidate
    image: Tensor | None
    """The weight times the second moments of its inputs, where outputs are brought back."""


class WeightStates:
    """Learned roundings and output shifts by weight and quantizer, found when first asked for."""

    def __init__(
        self,
        program: Program,
        sites: Mapping[str, Site],
        batches: Callable[[], Iterable[Mapping[str, Value]]],
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._program = program
        self._sites = sites
        self._batches = batches
        self._memory_bytes = memory_bytes
        self._states: dict[str, QuantizerState] = {}
        self._shared: dict[str, QuantizerState | None] = {}
        self.macs = 0
        """Multiply-accumulates spent on passes over the calibration data and on learning."""

    def prepare(self, pairs: Iterable[tuple[str, Quantizer]]) -> None:
        """Finds the states of quantizers at sites, several layers in one pass over the data.

        Raises:
            AssignmentError: a learned rounding or a correction at a site that cannot have one.
        """
        pairs = tuple(pairs)
        tied = self.tied(pairs)
        asked = (pair for pair in pairs if pair[0] not in tied)
        wishes = {
            wish.identity: wish
            for key, quantizer in asked
            for place in self._in_block(key, quantizer)
            for wish in self._wishes(place, quantizer)
        }
        missing = [wish for identity, wish in wishes.items() if identity not in self._states]
        with exact_float32(self._program.device):
            self._find(missing)

    def _find(self, missing: Sequence[Wish]) -> None:
        """Adds the states of wishes that have none."""
        blockwise: dict[Quantizer, list[_ByBlock]] = {}
        for wish in missing:
            if not wish.needs_data:
                self._states[wish.identity] = self._factors(wish, None)
        for part in self._passes([wish for wish in missing if wish.needs_data]):
            second = frozenset(
                product.operand
                for wish in part
                if wish.needs_second
                for product in self._readers(wish)
            )
            products = [product for wish in part for product in self._readers(wish)]
            found, macs = observe_moments(self._program, self._batches(), products, second=second)
            self.macs += macs
            for wish in part:
                operands = dict.fromkeys(product.operand for product in self._readers(wish))
                moments = together([found[operand] for operand in operands])
                if wish.quantizer.rounding == "blockwise":
                    one = self._by_block(wish, moments)
                    blockwise.setdefault(wish.quantizer, []).append(one)
                else:
                    self._states[wish.identity] = self._state(wish, moments)
        for group in blockwise.values():
            self._reconstruct(group)

    def _in_block(self, key: str, quantizer: Quantizer) -> Sequence[str]:
        """The sites whose states are found with that of one: it and, by block, its neighbours.

        All that are in a block, whether asked for or not, so that states do not depend on it.
        """
        if quantizer.rounding != "blockwise" or key not in self._products:
            return (key,)
        for block in self._blocks:
            if key in block.weights:
                return tuple(block.weights)
        raise AssignmentError(
            f"site {key!r}: {quantizer.name} needs a weight of the graph itself that leads to an "
            "output; in bodies of control flow use gptq"
        )

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        graph = self._program.graph
        here = {key: p for key, p in self._products.items() if p.node.name in graph.by_name}
        return blocks_of(graph, here, {key: self._sites[key].value for key in here})

    def _reconstruct(self, group: Sequence[_ByBlock]) -> None:
        """Adds the states of weights that are rounded by block under one quantizer."""
        weights = {key: self._weight(key) for block in self._blocks for key in block.weights}
        candidates = {one.wish.key: one.candidate for one in group}
        found, macs = reconstructed(
            self._blocks, self._batches(), weights, candidates, device=self._program.device
        )
        self.macs += macs
        for one in group:
            wish, matrix, mean = one.wish, one.candidate.matrix, one.candidate.mean
            state = replace(one.state, values=found[wish.key])
            if one.image is not None:
                state = with_gains(state, matrix, one.image, wish.settled)
            values = state.values
            assert values is not None
            shift = None if mean is None else _shift(wish, matrix - values, mean)
            self._states[wish.identity] = replace(
                state, values=wish.product.weight(values), output_shift=shift
            )

    def _by_block(self, wish: Wish, moments: Moments) -> _ByBlock:
        """A weight to round by block: its scales, and where GPTQ leaves it to start from."""
        matrix = wish.product.matrix(self._weight(wish.key))
        # Brought back to its strength once, at the end.
        alone = wish.quantizer.replaced(rounding="gptq", correction="uncorrected")
        layer = replace(wish, quantizer=alone)
        state, start = self._learned(layer, matrix, moments)
        image = None
        if wish.restores:
            self.macs += matrix.numel() * wish.product.depth
            image = matrix.double() @ moments.second(centred=wish.corrects)
        candidate = Candidate(
            product=wish.product,
            matrix=matrix,
            start=start,
            near=beside(matrix, start, wish.settled, state),
            mean=moments.mean if wish.corrects else None,
        )
        return _ByBlock(wish=wish, state=state, candidate=candidate, image=image)

    def _level(self, key: str, quantizer: Quantizer) -> float | None:
        """The scale of the tensor that a weight shares with others of one value's readers."""
        shared = self._shared_scale(key, quantizer)
        return None if shared is None else shared.tensor_scale

    def _readers(self, wish: Wish) -> Sequence[Product]:
        """The products whose rows decide about a wish: all that multiply its weight alike."""
        if wish.key == wish.product.activation or sides_of(wish.quantizer) is not None:
            return (wish.product,)
        if smoothing_strength(wish.quantizer) is not None:
            return (wish.product,)
        return tuple(self._products[key] for key in self._alike[wish.key])

    def settled(self, assignment: Assignment) -> Assignment:
        """The assignment as it stands at sites: equalised where both neighbours ask for it.

        Raises:
            AssignmentError: `equalize` at a site without a neighbour to scale.
        """
        if all(sides_of(quantizer) is None for _, quantizer in assignment):
            return assignment
        return self._equalization.settled(assignment)

    def tied(self, pairs: Iterable[tuple[str, Quantizer]]) -> Mapping[str, Reader]:
        """The products whose stored weight look-ups read, by the site key of the look-up's table.

        Both have one quantizer, and none that moves ranges between operands, which the product
        alone could undo.
        """
        pairs = tuple(pairs)
        tables = {tie.look_up.key: tie.products for tie in self._program.analysis.ties}
        found: dict[str, Reader] = {}
        for key, quantizer in pairs:
            still = sides_of(quantizer) is None and smoothing_strength(quantizer) is None
            readers = tables.get(key, ()) if still else ()
            alike = (one for one in readers if (one.site.key, quantizer) in pairs)
            if (reader := next(alike, None)) is not None:
                found[key] = reader
        return found

    def state(self, key: str, quantizer: Quantizer) -> QuantizerState | None:
        """The state of a quantizer at a site; None where it needs nothing."""
        for wish in self._wishes(key, quantizer):
            if wish.identity not in self._states:
                self.prepare([(key, quantizer)])
            return self._states[wish.identity]
        return self._shared_scale(key, quantizer)

    def _shared_scale(self, key: str, quantizer: Quantizer) -> QuantizerState | None:
        """One scale of the tensor for the matrices that multiply one value (q, k, v; gate, up).

        Runtimes load them as one matrix, which has one.
        """
        product, format = self._products.get(key), quantizer.format
        if product is None or product.is_convolution or not _is_shared(quantizer):
            return None
        place = f"{product.operand!r}={format!r}"
        if place not in self._shared:
            largest = [
                largest_finite(self._weight(other))
                for other, sibling in self._products.items()
                if sibling.operand == product.operand
            ]
            several = len(largest) > 1
            self._shared[place] = _of_tensor(max(largest), quantizer) if several else None
        return self._shared[place]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the graph, those of bodies too."""
        return self._program.analysis.flat.graph.nodes

    def product(self, key: str) -> Product | None:
        """The product that a weight takes part in."""
        return self._products.get(key)

    def save(self, folder: Path) -> str:
        """Writes `weights.safetensors` into a folder; the digest of what was found so far."""
        folder.mkdir(parents=True, exist_ok=True)
        return save_states(self._states, folder / FILE)

    def load(self, folder: Path) -> None:
        """Takes over what `save` wrote, instead of learning it again.

        Raises:
            StateError: the file is missing or its content is not what its digest says.
        """
        found = load_states(folder / FILE)
        self._states |= {key: state.on(self._program.device) for key, state in found.items()}

    def _wishes(self, key: str, quantizer: Quantizer) -> Iterator[Wish]:
        """One, or none where the quantizer needs no state."""
        site = self._sites.get(key)
        scaled = smoothing_strength(quantizer) is not None
        if sides_of(quantizer) is not None:
            self._equalization.check([key])
            scaled = True
        if site is None or site.role != "weight":
            if quantizer.is_learned:
                role = "unknown" if site is None else site.role
                raise AssignmentError(
                    f"site {key!r} ({role}): {quantizer.name} learns its rounding, which only "
                    "weights can"
                )
            if scaled:
                yield self._at_operand(key, quantizer)
            return
        product = self._products.get(key)
        moves = scaled or quantizer.correction == "bias_corrected"
        if product is None or (product.is_recurrent and moves):
            if moves or quantizer.is_learned:
                raise AssignmentError(
                    f"site {key!r}: {quantizer.name} needs a convolution over one or two axes or "
                    "a matrix product with one weight matrix on the right"
                    + ("" if moves else ", or a recurrence whose states are an output")
                )
            return
        corrects = quantizer.settled(weight=True).correction == "bias_corrected"
        # Nobody asked: only where a bias takes the shift for nothing.
        corrects &= product.has_bias or quantizer.correction != "auto"
        if not scaled:
            # One weight is stored once, so that what is learned about it is one, too.
            key = self._alike[key][0]
            product = self._products[key]
        wish = Wish(key=key, quantizer=quantizer, product=product, corrects=corrects)
        if wish.needs_data or scaled:
            yield wish

    def _at_operand(self, key: str, quantizer: Quantizer) -> Wish:
        """An activation whose ranges move into the weight of its node."""
        product = self._products.get(f"{key.rpartition('/')[0]}/in1")
        if product is None or product.is_recurrent or product.activation != key:
            raise AssignmentError(
                f"site {key!r}: {quantizer.name}: meets no weight to smooth into"
            )
        return Wish(key=key, quantizer=quantizer, product=product, corrects=False)

    @cached_property
    def _products(self) -> dict[str, Product]:
        shapes = {
            key: tuple(weight.shape)
            for key, site in self._sites.items()
            if site.role == "weight" and (weight := self._program.constant(site.value)) is not None
        }
        return products_of(self._program.analysis.flat.graph, shapes)

    @cached_property
    def _alike(self) -> Mapping[str, Sequence[str]]:
        """The products that multiply one stored weight in the same way, for each of them."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for key, product in self._products.items():
            groups.setdefault(self._use(key, product), []).append(key)
        parts = [part for group in groups.values() for part in self._of_equal_values(group)]
        return {key: part for part in parts for key in part}

    def _use(self, key: str, product: Product) -> tuple[object, ...]:
        """The constant behind a weight, and how a product multiplies it."""
        site = self._sites[key]
        return (
            self._program.analysis.flow.back(site.value, LAYOUT), site.contraction_axes,
            product.weight_shape, product.groups, product.node.op_type, product.of_hidden,
            product.scale, product.node.attributes.get("transB"), product.has_bias,
            product.bias is None,
        )  # fmt: skip

    def _of_equal_values(self, keys: Sequence[str]) -> list[list[str]]:
        """Sites in groups of equal weights: layouts can make others of one constant."""
        found: list[list[str]] = []
        for key in keys:
            part = next((part for part in found if self._is_same(part[0], key)), None)
            if part is None:
                found.append([key])
            else:
                part.append(key)
        return found

    def _is_same(self, first: str, second: str) -> bool:
        if self._sites[first].value == self._sites[second].value:
            return True
        return torch.equal(self._weight(first), self._weight(second))

    def _passes(self, wishes: list[Wish]) -> Iterator[list[Wish]]:
        """Wishes in parts whose outer products fit into memory together."""
        part: list[Wish] = []
        held: dict[tuple[object, ...], int] = {}
        for wish in sorted(wishes, key=lambda wish: (wish.needs_second, wish.identity)):
            product = wish.product
            # Float32, of both halves of the data.
            size = 2 * 4 * product.groups * product.depth**2 if wish.needs_second else 0
            grown = dict(held)
            for reader in self._readers(wish):
                grown[reader.operand] = max(size, held.get(reader.operand, 0))
            if part and sum(grown.values()) > self._memory_bytes:
                yield part
                part = []
                grown = {reader.operand: size for reader in self._readers(wish)}
            part.append(wish)
            held = grown
        if part:
            yield part

    def _state(self, wish: Wish, moments: Moments) -> QuantizerState:
        product = wish.product
        state = self._factors(wish, moments)
        if wish.key == product.activation:
            return state
        weight = self._weight(wish.key)
        matrix = product.matrix(weight)
        values = None
        if wish.needs_second:
            state, values = self._learned(wish, matrix, moments)
        if not wish.corrects:
            return state
        if values is None:
            values = product.matrix(self._plain(wish, weight, state))
        return replace(state, output_shift=_shift(wish, matrix - values, moments.mean))

    def _weight(self, key: str) -> Tensor:
        """The full-precision weight, where moments of its inputs are and its states will be."""
        given = self._program.constant(self._sites[key].value)
        assert given is not None
        return given.detach().to(self._program.device, torch.float32)

    def _factors(self, wish: Wish, moments: Moments | None) -> QuantizerState:
        """The channel factors of a smoothed or equalised operand; nothing for others."""
        sides = sides_of(wish.quantizer)
        if sides is not None:
            factors = self._equalization.of(wish.key, sides).to(self._program.device)
            return QuantizerState(channel_factors=factors)
        strength, product = smoothing_strength(wish.quantizer), wish.product
        if strength is None or moments is None:
            return QuantizerState()
        same = (
            (other, self._weight(key))
            for key, other in self._products.items()
            if other.operand == product.operand
        )
        factors = smoothing_of(wish.key, product, moments.largest, same, strength)
        if wish.key == product.activation:
            return QuantizerState(channel_factors=factors)
        return QuantizerState(channel_factors=(1 / factors).repeat_interleave(product.taps))

    @cached_property
    def _equalization(self) -> Equalization:
        products = {key: p for key, p in self._products.items() if not p.is_recurrent}
        return equalization(self._program.analysis.flat.graph, products, self._weight)

    def _learned(
        self, wish: Wish, matrix: Tensor, moments: Moments
    ) -> tuple[QuantizerState, Tensor]:
        """The state that data decide for a weight, and its values as a matrix.

        A correction takes care of mean inputs, so that only what deviates from them counts.
        """
        product, quantizer = wish.product, wish.settled
        second = moments.second(centred=wish.corrects)
        outputs = matrix.shape[1]
        if quantizer.statistic == "output_mse":
            self.macs += product.groups * output_range_macs(outputs, product.depth, quantizer)
        if not quantizer.is_learned:
            state = output_range(matrix, second, quantizer)
            rows = matrix.reshape(-1, product.depth)
            found = quantize(rows, quantizer, axes=(1,), state=state).reshape(matrix.shape)
            if not wish.restores:
                return state, found
            # The weight itself would have other codes under other scales.
            return self._restored(wish, matrix, second, replace(state, values=found))
        self.macs += product.groups * learned_macs(outputs, product.depth, quantizer)
        try:
            level = self._level(wish.key, quantizer)
            if quantizer.rounding == "gptq" and not quantizer.transforms:
                self.macs += product.groups * held_out_macs(outputs, product.depth)
                halves = moments.halves(centred=wish.corrects)
                share = held_out_damping(matrix, halves, quantizer, tensor_scale=level)
                second = damped(second, share)
            state = learned_state(matrix, second, quantizer, tensor_scale=level)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise AssignmentError(
                f"site {wish.key!r}: {wish.quantizer.name}: the inputs of the layer on the "
                f"calibration split have no usable second moment ({error})"
            ) from error
        if wish.restores:
            return self._restored(wish, matrix, second, state)
        assert state.values is not None
        return replace(state, values=product.weight(state.values)), state.values

    def _restored(
        self, wish: Wish, matrix: Tensor, second: Tensor, state: QuantizerState
    ) -> tuple[QuantizerState, Tensor]:
        """As `_learned`, of a state with values as a matrix, whose outputs are brought back."""
        self.macs += matrix.numel() * wish.product.depth
        state = with_gains(state, matrix, matrix.double() @ second, wish.settled)
        assert state.values is not None
        return replace(state, values=wish.product.weight(state.values)), state.values

    def _plain(self, wish: Wish, weight: Tensor, state: QuantizerState) -> Tensor:
        """The weight under a quantizer that needs no data but factors."""
        quantizer, axes = wish.settled, self._sites[wish.key].contraction_axes
        if not quantizer.is_dynamic:
            state = calibrated_state(weight, quantizer, axes=axes, state=state)
        return quantize(weight, quantizer, axes=axes, state=state)


def _shift(wish: Wish, error: Tensor, mean: Tensor) -> Tensor:
    """(outputs,): the loss of mean outputs by errors of a matrix that meet mean inputs."""
    lost = error.double() @ mean[..., None]
    return lost.float().flatten() * wish.product.scale


def _is_shared(quantizer: Quantizer) -> bool:
    """Whether a weight has a scale of the tensor that a merged matrix has once.

    Of floats: integers lose steps where a sibling is larger, and runtimes keep theirs by channel.
    """
    format = quantizer.format
    if quantizer.transforms or format.scale is None:  # they change the values it is for
        return False
    if format.tensor_scale is not None:
        return True
    settled = quantizer.settled(weight=True)
    per_tensor = format.granularity == "tensor" and format.element.kind == "float"
    return per_tensor and settled.statistic == "absmax" and settled.correction == "uncorrected"


def _of_tensor(largest: Tensor, quantizer: Quantizer) -> QuantizerState:
    """The state with the scale of a tensor whose largest magnitude is given."""
    if quantizer.format.tensor_scale is not None:
        return QuantizerState(tensor_scale=tensor_scale_of(largest, quantizer.format))
    static = quantizer.settled(weight=True).replaced(timing="static")
    return calibrated_state(largest.reshape(1, 1), static, axes=(1,))
