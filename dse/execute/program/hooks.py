"""Quantizers at their places among the steps of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from dse.errors import AssignmentError, GraphError, nearest
from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Quantize, Step, Summing, overwrites
from dse.execute.program.weight_store import PlacedCache, WeightCache
from dse.execute.summed import SUMMED
from dse.graph.ir.site import SUM


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The quantizers at one step, by operand position."""

    inputs: tuple[tuple[int, Quantize], ...] = ()
    outputs: tuple[tuple[int, Quantize], ...] = ()
    total: Summing | None = None
    """The sum of a product, where the operator is not to form it."""
    inside: tuple[tuple[str, Quantize], ...] = ()
    """By site key, of nodes in the bodies of a control-flow step."""

    def written(self, outputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """The outputs as every reader will see them."""
        changed = list(outputs)
        for position, quantize in self.outputs:
            changed[position] = quantize(_tensor(changed[position]))
        return tuple(changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The operands that read a value through equal quantizers: they share one result."""

    number: Mapping[tuple[int, int], int]
    """By step index and operand position; operands that share have one number."""
    counts: tuple[int, ...]
    """Operands by number."""

    @classmethod
    def of(cls, steps: tuple[Step, ...], hooks: Mapping[int, Hook]) -> Readings:
        """Those of some steps, so that no run needs to compare quantizers again."""
        known: dict[tuple[int, Quantize], int] = {}
        number: dict[tuple[int, int], int] = {}
        for step in steps:
            for position, quantize in hooks[step.index].inputs if step.index in hooks else ():
                key = (step.inputs[position], quantize)
                number[step.index, position] = known.setdefault(key, len(known))
        counts = Counter(number.values())
        return cls(number=number, counts=tuple(counts[i] for i in range(len(known))))


class Hooks:
    """The quantizers of one run.

    An activation that several operands read through equal quantizers is quantised once; weights
    are looked up in the cache of the program.
    """

    def __init__(
        self,
        hooks: Mapping[int, Hook],
        *,
        readings: Readings,
        constant: Callable[[int], bool],
        weights: WeightCache | PlacedCache,
        enter: Callable[[Step, Mapping[str, Quantize]], Step],
        own: frozenset[int] = frozenset(),
    ) -> None:
        self._hooks = hooks
        self._constant = constant
        self._weights = weights
        self._enter = enter
        self._own = own
        self._fresh: set[int] = set()
        self._shared: dict[int, Tensor] = {}
        self._number = readings.number
        self._waiting = list(readings.counts)

    def at(self, step: Step) -> Hook | None:
        """The quantizers of a step."""
        return self._hooks.get(step.index)

    def entered(self, step: Step, hook: Hook, arguments: tuple[Value, ...]) -> Step:
        """The step with the quantizers in its bodies, or with its sum formed by the hook.

        `arguments` are those before quantizers.
        """
        if hook.inside:
            return self._enter(step, dict(hook.inside))
        if hook.total is None:
            return step
        made = [
            self._made_of(step.inputs[place], *makers, arguments[place])
            for place, makers in enumerate(zip(hook.total.scales, hook.total.codes, strict=True))
        ]
        (first, first_codes), (second, second_codes) = made
        coded = (first_codes, second_codes)
        read = tuple(p for p in step.streamed if p >= len(coded) or coded[p] is None)
        return hook.total.applied(replace(step, streamed=read), (first, second), coded)

    def _made_of(
        self, slot: int, scales: Quantize | None, codes: Quantize | None, value: Value
    ) -> tuple[Tensor | None, Tensor | None]:
        """Scales of an operand, and codes of a constant one, which are kept between runs."""
        if scales is None and codes is None:
            return None, None
        x = _tensor(value)
        if not self._constant(slot):
            return None if scales is None else scales(x), None
        makers = [made for made in (scales, codes) if made is not None]
        found = dict(zip(makers, self._weights.made(slot, makers, x), strict=True))
        return None if scales is None else found[scales], None if codes is None else found[codes]

    def arguments(self, step: Step, hook: Hook, arguments: tuple[Value, ...]) -> tuple[Value, ...]:
        """The arguments with the operands of the hook quantised.

        A constant whose codes a sum is formed of stays as it is: nobody reads its values.
        """
        changed = list(arguments)
        coded = () if hook.total is None else hook.total.codes
        for position, quantize in hook.inputs:
            slot = step.inputs[position]
            value = _tensor(changed[position])
            if self._constant(slot):
                if position < len(coded) and coded[position] is not None:
                    continue
                changed[position] = self._weights.quantized(slot, quantize, value)
            else:
                number = self._number[step.index, position]
                changed[position] = self._activation(number, slot, quantize, value)
        return tuple(changed)

    def made(self, step: Step, arguments: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Notes a result that nothing but its quantizers will see, in memory of its own."""
        slot = step.outputs[0]
        if slot in self._own and _is_fresh(outputs[0], arguments):
            self._fresh.add(slot)

    def _activation(self, number: int, slot: int, quantize: Quantize, value: Tensor) -> Tensor:
        self._waiting[number] -= 1
        waiting = self._waiting[number] > 0
        if number in self._shared:
            return self._shared[number] if waiting else self._shared.pop(number)
        if slot in self._fresh and overwrites(quantize):
            result = quantize.overwrite(value)
        else:
            result = quantize(value)
        if waiting:
            self._shared[number] = result
        return result


def _is_fresh(value: Value, arguments: tuple[Value, ...]) -> bool:
    """Whether a result fills memory that none of the arguments has."""
    if not isinstance(value, Tensor) or value.requires_grad:
        return False
    storage = value.untyped_storage()
    if storage.nbytes() != value.numel() * value.element_size():
        return False
    return not any(
        isinstance(x, list)
        or (isinstance(x, Tensor) and x.untyped_storage().data_ptr() == storage.data_ptr())
        for x in arguments
    )


def _tensor(value: Value) -> Tensor:
    if not isinstance(value, Tensor):
        raise GraphError(f"a quantizer needs a tensor, got {type(value).__name__}")
    return value


def placed(sites: Mapping[str, Quantize], steps: Mapping[str, Step]) -> dict[int, Hook]:
    """Hooks by step index; `steps` by node name. What stands at `<node>/sum` is a `Summing`.

    Raises:
        AssignmentError: a key names no operand of the graph (all of them at once).
    """
    wrong = [message for key in sites for message in [_fault(key, steps)] if message]
    if wrong:
        raise AssignmentError("; ".join(wrong))
    found: dict[int, Hook] = {}
    for key, quantize in sites.items():
        name, _, operand = key.rpartition("/")
        index = steps[name].index
        hook = found.get(index, Hook())
        if steps[name].name != name:
            found[index] = replace(hook, inside=(*hook.inside, (key, quantize)))
        elif operand == SUM:
            found[index] = replace(hook, total=cast("Summing", quantize))
        elif operand.startswith("in"):
            pair = (int(operand[2:]), quantize)
            found[index] = replace(hook, inputs=(*hook.inputs, pair))
        else:
            pair = (int(operand[3:]), quantize)
            found[index] = replace(hook, outputs=(*hook.outputs, pair))
    return found


def _fault(key: str, steps: Mapping[str, Step]) -> str | None:
    name, _, operand = key.rpartition("/")
    if name not in steps:
        return f"site {key!r}: the graph has no node {name!r}{nearest(name, steps)}"
    step = steps[name]
    if step.name != name:
        return None  # in a body, where it is looked up when the body is planned
    places = [f"in{i}" for i, slot in enumerate(step.inputs) if slot != ABSENT]
    places += [f"out{i}" for i, slot in enumerate(step.outputs) if slot != ABSENT]
    summed = operand == SUM and step.what in SUMMED
    if not summed and operand not in places:
        return f"site {key!r}: {step.what} has the operands {', '.join(places)}, not {operand!r}"
    return None
