"""The linear layers of a folder under an assignment, and the parts that have no place there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dse.execute.emulate import Emulator, Tied
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import Shift
from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.hugging_face.linears import Linear, linears_of, mixtures_of, siblings_of
from dse.export.hugging_face.rows import is_element
from dse.graph.ir.site import Site
from dse.imports.checkpoint import Checkpoint, read_checkpoint

NO_FOLDER = Refusal(
    reason="the model is no Hugging Face folder, whose names and configuration it needs",
    instead="search the folder itself, or take 'onnx-qdq' or 'recipe' for this model",
)
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}
"""Types that a whole network runs in, as `config.json` calls them."""
SIXTEEN_BITS = "bf16 or fp16 is written"
CACHES = {"k_cache": "k", "v_cache": "v"}


@dataclass(slots=True, kw_only=True)
class Layer:
    """A linear layer with a quantized weight."""

    linear: Linear
    weight: Emulator
    input: Emulator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Keys or values of one attention."""

    key: str
    """Their site."""
    quantize: Emulator


@dataclass(slots=True, kw_only=True)
class Layers:
    """An assignment sorted by where its parts go."""

    checkpoint: Checkpoint
    linears: Mapping[str, Linear]
    """Every linear layer of the network, by module."""
    quantized: dict[str, Layer] = field(default_factory=dict)
    """By module."""
    shared: dict[str, str] = field(default_factory=dict)
    """Stored tables by module whose weight they are, where a look-up reads the module's copy."""
    caches: dict[str, dict[str, Cache]] = field(default_factory=dict)
    """Keys (`k`) and values (`v`) by attention module, where they are quantized."""
    attentions: set[str] = field(default_factory=set)
    """Every attention module that keeps keys and values."""
    replaced: dict[str, Tensor] = field(default_factory=dict)
    """Tensors with other values than in the checkpoint: cast weights, corrected biases. A tied
    matrix stands under its own name, which is none of the checkpoint."""
    precisions: set[str] = field(default_factory=set)
    """Formats of sites that are only cast."""
    refused: list[Refusal] = field(default_factory=list)

    @property
    def dtype(self) -> str | None:
        """The type that the assignment wants the network to run in; None where it says nothing."""
        return PRECISIONS[min(self.precisions)] if self.precisions else None

    def home(self, module: str) -> str:
        """The module whose tensors a layer's are: that of the table which a look-up shares."""
        return self.shared.get(module, f"{module}.weight").removesuffix(".weight")

    @property
    def kept(self) -> list[str]:
        """Linear layers that stay as they are."""
        return sorted(module for module in self.linears if module not in self.quantized)

    @property
    def by_weight(self) -> dict[str, list[Layer]]:
        """Quantized layers by the site of their weight; experts share one."""
        found: dict[str, list[Layer]] = {}
        for layer in self.quantized.values():
            found.setdefault(layer.linear.weight_key, []).append(layer)
        return found

    @property
    def fused(self) -> set[str]:
        """Modules that runtimes load as one with others."""
        linears = list(self.linears.values())
        groups = [*siblings_of(linears), *mixtures_of(linears).values()]
        return {linear.module for group in groups for linear in group}


def layers_of(
    recipe: Recipe, *, fused: bool = True, experts: bool = True, tables: bool = False
) -> Layers:
    """The layers of a recipe whose model is a Hugging Face folder.

    Args:
        recipe: the recipe.
        fused: whether the runtime loads siblings (`q_proj`, `k_proj`, `v_proj`) as one layer.
        experts: whether the target says matrices of experts; else they are none of its layers.
        tables: whether the runtime's look-ups read what a layer stores.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    assert recipe.checkpoint is not None, "the caller has asked"
    checkpoint = read_checkpoint(recipe.checkpoint)
    linears = linears_of(recipe, checkpoint)
    if not experts:
        linears = {name: one for name, one in linears.items() if one.stack is None}
    found = Layers(checkpoint=checkpoint, linears=linears)
    sorter = _Sorter(recipe=recipe, found=found, tables=tables)
    # Weights first: an input is written with the weight that it meets.
    for key in sorted(recipe.bound, key=lambda key: (not key.endswith("/in1"), key)):
        sorter.sort(key, recipe.bound[key])
    sorter.check_whole(fused=fused)
    return found


def unsaid(
    recipe: Recipe, layers: Layers, *, caches: str, inputs: str | None = None
) -> Iterator[Refusal]:
    """Refusals of caches, and of layers' inputs, where a target has no place for them.

    Args:
        recipe: the recipe.
        layers: its layers.
        caches: the reason of the first.
        inputs: the reason of the others; None where the target takes them.
    """
    for parts in layers.caches.values():
        for cache in parts.values():
            yield recipe.refusal(cache.key, caches, SIXTEEN_BITS)
    if inputs is None:
        return
    for layer in layers.quantized.values():
        if layer.input is not None:
            yield recipe.refusal(layer.linear.input_key, inputs, SIXTEEN_BITS)


@dataclass(slots=True, kw_only=True)
class _Sorter:
    """Puts every site of a recipe into its place, or refuses it."""

    recipe: Recipe
    found: Layers
    tables: bool
    sites: Mapping[str, Site] = field(init=False)
    linears: dict[str, list[Linear]] = field(init=False)
    """By node; several where the node multiplies a stack of experts."""
    named: set[str] = field(init=False)
    """Sites of the assignment."""

    def __post_init__(self) -> None:
        self.sites = self.recipe.program.analysis.by_key
        self.linears = {}
        for linear in self.found.linears.values():
            self.linears.setdefault(linear.node.name, []).append(linear)
        self.named = {key for key, _ in self.recipe.assignment}
        self.found.attentions = {
            _module(site.node) for site in self.sites.values() if site.role in CACHES
        }

    def sort(self, key: str, quantize: Quantize) -> None:
        """One site."""
        try:
            self._place(key, quantize)
        except Inexpressible as why:
            self._refuse(key, why.reason, why.instead)

    def check_whole(self, *, fused: bool) -> None:
        """The facts that hold for all sites together."""
        if len(self.found.precisions) > 1:
            self._refuse(
                "",
                f"a network runs in one type, and this assignment has "
                f"{', '.join(sorted(self.found.precisions))}",
                "one of them at every site that is only cast is written",
            )
        for group in self._fused_groups() if fused else ():
            self._check_siblings(group)
        self._check_caches()

    def _fused_groups(self) -> Iterator[Sequence[Linear]]:
        """Layers that must have one format; of a mixture one expert, since they share sites."""
        linears = list(self.found.linears.values())
        for group in siblings_of(linears):
            if group[0].stack is None:
                yield group
        for mixture in mixtures_of(linears).values():
            yield [one for one in mixture if one.stack is None or one.stack.expert == 0]

    def _check_caches(self) -> None:
        found = self.found.caches
        missing = [
            f"{module} ({part})"
            for module in sorted(self.found.attentions)
            for part in CACHES.values()
            if part not in found.get(module, {})
        ]
        if found and missing:
            self._refuse(
                "",
                "one cache format holds for the whole network, and this assignment leaves out "
                f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
                "the same format for keys and values of every layer is written",
            )

    def _check_siblings(self, group: Iterable[Linear]) -> None:
        kinds = {linear.module: _kind(self.found.quantized.get(linear.module)) for linear in group}
        if len(set(kinds.values())) > 1:
            listed = "; ".join(f"{module}: {kind}" for module, kind in kinds.items())
            self._refuse(
                "",
                f"runtimes load them as one layer, and their formats differ ({listed})",
                "one format for all of them is written",
            )

    def _refuse(self, key: str, reason: str, instead: str) -> None:
        # A corrected mean stands at no site of the assignment: its weight does.
        site = key if key in self.named else f"{key.rpartition('/')[0]}/in1" if key else ""
        self.found.refused.append(self.recipe.refusal(site, reason, instead))

    def _place(self, key: str, quantize: Quantize) -> None:
        node = key.rpartition("/")[0]
        linears = self.linears.get(node, [])
        if isinstance(quantize, Shift):
            self._correct(linears, quantize)
        elif isinstance(quantize, Tied):
            self._share(key)
        elif not isinstance(quantize, Emulator):
            raise Inexpressible("is no quantizer of ours", instead="a format of the catalogue is")
        elif quantize.quantizer.format.scale is None:
            self._cast(key, linears, quantize)
        elif linears and key == linears[0].weight_key:
            for linear in linears:
                self.found.quantized[linear.module] = Layer(linear=linear, weight=quantize)
        elif linears and key == linears[0].input_key:
            self._meet(linears, quantize)
        elif (site := self.sites.get(key)) is not None and site.role in CACHES:
            cache = Cache(key=key, quantize=quantize)
            self.found.caches.setdefault(_module(node), {})[CACHES[site.role]] = cache
        else:
            raise Inexpressible(
                "checkpoints quantize linear layers, their inputs, and caches of keys and values; "
                f"this is none of them ({self._called(key)})",
                instead="bf16 or fp16 is written",
            )

    def _called(self, key: str) -> str:
        analysis = self.recipe.program.analysis
        tables = {site.key for site in analysis.tables}
        return "the table of a look-up" if key in tables else analysis.sites_with([key])[key].role

    def _share(self, key: str) -> None:
        """A look-up that reads what a layer stores."""
        ties = self.recipe.program.analysis.ties
        (tie,) = (one for one in ties if one.look_up.key == key)
        linears = [one for p in tie.products for one in self.linears.get(p.site.node, [])]
        module = next((one.module for one in linears if one.module in self.found.quantized), None)
        table = tie.look_up.value
        while table in self.recipe.graph.producer:
            table = self.recipe.graph.producer[table].inputs[0]
        if not self.tables or module is None or table not in self.found.checkpoint.tensors:
            raise Inexpressible(
                "runtimes of this target keep the tables of look-ups in 16 bits",
                instead="gguf and mlx write one copy; search for a target that keeps two",
            )
        self.found.shared[module] = table

    def _correct(self, linears: Sequence[Linear], shift: Shift) -> None:
        linear = linears[0] if len(linears) == 1 else None
        if linear is None or linear.bias not in self.found.checkpoint.tensors:
            raise Inexpressible(
                "the layer has no bias that could take its corrected mean",
                instead="the same with 'uncorrected' is written",
            )
        if shift.then is not None:
            self._place(f"{linear.node.name}/out0", shift.then)
        bias = self._stored(linear.bias)
        self.found.replaced[linear.bias] = bias + shift.shift.float().reshape(bias.shape)

    def _stored(self, name: str) -> Tensor:
        value = self.recipe.program.constant(name)
        assert value is not None, "the graph's initializers have the names of the checkpoint"
        return value.detach().float()

    def _cast(self, key: str, linears: Sequence[Linear], emulator: Emulator) -> None:
        element = emulator.quantizer.format.element
        name = next((name for name in PRECISIONS if is_element(element, name)), None)
        if name is None or emulator.quantizer.rounding != "nearest_even":
            raise Inexpressible(
                f"runtimes of packed weights compute in 16 bits, not in {emulator.quantizer.name}",
                instead="bf16 or fp16 is written",
            )
        self.found.precisions.add(name)
        if linears and key == linears[0].weight_key:
            weight = self.recipe.constant(key)
            assert weight is not None, "a linear layer has a constant weight"
            plain = weight.detach().float()
            values = emulator(plain)
            # A tied table is its look-up's, too, which nothing casts: it stays as it is stored.
            if not linears[0].tied or not torch.equal(values, plain):
                cast = values.to(getattr(torch, PRECISIONS[name]))
                self.found.replaced |= {one.weight: one.matrix(cast) for one in linears}

    def _meet(self, linears: Sequence[Linear], emulator: Emulator) -> None:
        for linear in linears:
            layer = self.found.quantized.get(linear.module)
            if layer is None:
                raise Inexpressible(
                    "an activation is quantized together with the weight that it meets, and this "
                    "weight is not",
                    instead="bf16 or fp16 is written, or a quantized weight",
                )
            layer.input = emulator


def emulated_weight(recipe: Recipe, layer: Layer) -> Tensor:
    """The weight that the emulator has of a layer: (outputs, depth) float32."""
    constant = recipe.constant(layer.linear.weight_key)
    assert constant is not None, "a linear layer has a constant weight"
    return layer.linear.matrix(layer.weight(constant.detach().float()))


def _module(node: str) -> str:
    """The module that a node's name begins with."""
    return node.rpartition(".")[0]


def _kind(layer: Layer | None) -> str:
    """The part that must be equal where layers load as one: formats, not how codes were chosen."""
    if layer is None:
        return "not quantized"
    if layer.input is None:
        return layer.weight.quantizer.format.name
    met = layer.input.quantizer
    return f"{layer.weight.quantizer.format.name} with {met.format.name}:{met.timing}"
