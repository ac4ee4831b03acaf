"""A method applied to a module: every product in its forward pass rounds as the method says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dse.errors import MethodError, nearest, some
from dse.numerics.accumulator import matmul
from dse.training.at_site import AtSite, Call
from dse.training.functions import REWRITES
from dse.training.gates import Gates
from dse.training.method import Formats, Method, Sites
from dse.training.products import Batched, Convolution, Linear, Matmul, product
from dse.training.roles import (
    ATTENTION,
    UNSTAGED,
    Site,
    SiteFormats,
    block_count,
    formats_at,
    matches,
)
from dse.training.tuning.tuned import Tuned
from hwmodels.formats.accumulator import accumulator

LOG = logging.getLogger(__name__)
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.RNNBase)
"""Modules whose products torch computes out of sight."""
PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
NUMBERS = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Numbers of functions between products."""
UNSEEN = (
    torch.bmm, torch.Tensor.bmm, torch.mm, torch.Tensor.mm, torch.addmm, torch.baddbmm,
    torch.einsum, functional.bilinear, functional.conv_transpose1d, functional.conv_transpose2d,
    functional.conv_transpose3d,
)  # fmt: skip
"""Products that are left in float32, with a warning."""


def apply(model: nn.Module, method: Method, *, seed: int = 0) -> Quantized:
    """The model under a method: the same parameters, other products.

    Every `linear`, `matmul` with a weight, convolution and `scaled_dot_product_attention` that
    runs inside of the model's forward pass is a site, named as the module that calls it. Its
    three products round their operands; everything else stays as the module computes it.

    Args:
        model: Any module in float32; its own code is not touched.
        method: See `dse.training.load_method`.
        seed: Of random rounding and rotations.

    Raises:
        MethodError: modules whose products nobody sees (`nn.MultiheadAttention`).
    """
    return Quantized(model, method, seed=seed)


class Quantized(nn.Module):
    """A module whose products round as a method says."""

    def __init__(self, model: nn.Module, method: Method, *, seed: int = 0) -> None:
        super().__init__()
        for name, module in model.named_modules():
            if isinstance(module, FUSED):
                raise MethodError(
                    f"module {name or 'itself'} is a {type(module).__name__}, whose products "
                    "cannot be seen; write it with Linear and scaled_dot_product_attention"
                )
        self.model = model
        self.method = method
        self.sites: dict[str, AtSite] = {}
        """Sites that ran, by name."""
        self.left: set[str] = set()
        """Functions of torch's whose products are left in float32."""
        self.rewritten: set[str] = set()
        """Rewrites of the method that took a function's place."""
        self._seed = seed
        self._calls = 0
        self._checked = False
        self._stack = [""]
        self._stage_of: Callable[[str], Formats] = lambda _: UNSTAGED
        names = [name for name, _ in model.named_modules()]
        self.blocks = block_count(names)
        self.tuned: Tuned | None = None
        """Adapters and cut units, from where a tuning begins."""
        self.weights: dict[str, Tensor] = {}
        """(outputs, inputs) of linear layers that ran, by name, where the method has a tuning."""
        schedule = method.schedule
        self.gates: Gates | None = None
        """Networks that choose stages, where the schedule has some."""
        if schedule is not None and schedule.kind == "gate":
            self.gates = Gates(method, schedule, blocks=self.blocks, seed=seed)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The module's result, its products rounded.

        Raises:
            MethodError: at the first call, a rule or a role that no site of the model has.
        """
        if self.training:
            self._calls += 1
        if self.gates is not None:
            self.gates.begin()
        call = f"{self._seed} {self._calls if self.training else 'evaluation'}"
        with self._names_followed(), _Products(self, call):
            found = self.model(*arguments, **named)
        if not self._checked:
            self._check()
            self._checked = True
        return found

    @contextmanager
    def _names_followed(self) -> Iterator[None]:
        """Keeps the name of the module that runs, by hooks that do not outlast the call."""
        hooks = []
        for name, module in self.model.named_modules():
            hooks += [
                module.register_forward_pre_hook(partial(_enter, self._stack, name)),
                module.register_forward_hook(partial(_leave, self._stack), always_call=True),
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            del self._stack[1:]

    def site(self, kind: str, *, second: str = "weight", first: str = "activation") -> AtSite:
        """The site of the module that runs now."""
        name = self._stack[-1] or "model"
        key = name if second == "weight" else f"{name}.{second}"
        if key not in self.sites:
            site = Site(name=name, kind=kind)  # type: ignore[arg-type]
            self.sites[key] = AtSite(
                site=site, formats=self._formats(site), first=first, second=second
            )
        return self.sites[key]

    def restage(self, stage_of: Callable[[str], Formats]) -> None:
        """Changes the formats of a schedule; `stage_of` gives a site's by its name."""
        self._stage_of = stage_of
        for at in self.sites.values():
            at.formats = self._formats(at.site)

    def _formats(self, site: Site) -> SiteFormats:
        return formats_at(self.method, site, self.blocks, stage=self._stage_of(site.name))

    def get_extra_state(self) -> dict[str, Any]:
        """Calls so far and what delayed scales remember."""
        remembered = {
            f"{name} {key}": list(scale.history)
            for name, at in self.sites.items()
            for key, scale in at.delayed.items()
        }
        return {"calls": self._calls, "remembered": remembered}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from another one's state; sites that remember something must have run once."""
        self._calls = state["calls"]
        for name, history in state["remembered"].items():
            site, _, key = name.rpartition(" ")
            self.sites[site].scale(key).restore(history)

    def _check(self) -> None:
        """Raises `MethodError` for a rule or role that is for nothing here."""
        ran = [at.site for at in self.sites.values()]
        parameters = [Site(name=name, kind="linear") for name, _ in self.model.named_parameters()]
        for index, rule in enumerate(self.method.rules):
            known = [*ran, *(parameters if rule.match.kind is None else [])]
            if not rule.match.optional and not any(
                matches(rule.match, site, self.blocks) for site in known
            ):
                raise MethodError(f"rules.{index}.match: {_nothing(rule.match, ran)}")
        attention = any(site.kind == "attention" for site in ran)
        stages = self.method.schedule.stages if self.method.schedule else ()
        for key in (key for formats in (self.method.roles, *stages) for key in formats):
            if key.partition("@")[0] in ATTENTION and not attention:
                raise MethodError(
                    f"roles.{key}: the model has no scaled_dot_product_attention, so nothing has "
                    "this role; leave it out"
                )


def _nothing(match: Sites, ran: Sequence[Site]) -> str:
    names = list(dict.fromkeys(site.name for site in ran))
    return f"no site of the model fits{nearest(match.name, names)}; sites: {some(names, 5)}"


def _enter(stack: list[str], name: str, *_: object) -> None:
    stack.append(name)


def _leave(stack: list[str], *_: object) -> None:
    stack.pop()


class _Products(TorchFunctionMode):
    """Replaces the products that run while it is active."""

    def __init__(self, owner: Quantized, call: str) -> None:
        super().__init__()
        self._owner = owner
        self._call = call
        functions = owner.method.functions
        self._between = None if functions is None else NUMBERS[functions.format]
        self._rewritten = {
            function: (name, instead)
            for name in (() if functions is None else functions.rewrites)
            for function, instead in REWRITES[name].items()
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The result of a function of torch's."""
        named = dict(kwargs or {})
        if func in self._rewritten:
            name, instead = self._rewritten[func]
            self._owner.rewritten.add(name)
            return instead(*args, **named)
        if func is functional.linear:
            return self._as_functions(self._linear, args, named)
        if func in PRODUCTS and _is_weight(args[1]):
            return self._as_functions(self._linear, (args[0], args[1].mT, None), {})
        if func in CONVOLUTIONS:
            return self._as_functions(self._convolution, args, named)
        if func is functional.scaled_dot_product_attention:
            return self._as_functions(self._attention, args, named)
        if func in UNSEEN or func in PRODUCTS:
            _warn(self._owner, func)
        return func(*args, **named)

    def _as_functions(
        self, made: Callable[..., Tensor], args: Sequence[Any], named: Mapping[str, Any]
    ) -> Tensor:
        """The result of a product in the numbers of the functions around it."""
        if self._between is None:
            return made(*args, **named)
        args = [_widened(one, self._between) for one in args]
        return made(*args, **{key: _widened(one, self._between) for key, one in named.items()}).to(
            self._between
        )

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = input.reshape(-1, input.shape[-1])
        at = self._owner.site("linear")
        at.sums = {"fprop": weight.shape[1], "dgrad": weight.shape[0], "wgrad": len(flat)}

        def made(at: AtSite) -> Tensor:
            call = self._called(at)
            tuned = self._owner.tuned
            if tuned is None and self._owner.method.tuning is not None:
                self._owner.weights[at.site.name] = weight.detach()
            whole = weight if tuned is None else tuned.weight(at.site.name, weight)
            sums = Linear(
                sums=_sums(at.formats, "fprop"),
                sums_dgrad=_sums(at.formats, "dgrad"),
                sums_wgrad=_sums(at.formats, "wgrad"),
            )
            y = product(flat, whole, sums, call)
            y = y.reshape(*input.shape[:-1], weight.shape[0])
            y = _output(y if bias is None else y + bias, call)
            return y if tuned is None else tuned.output(at.site.name, y)

        return self._chosen(at, input, weight, made)

    def _chosen(
        self, at: AtSite, x: Tensor, weight: Tensor, made: Callable[[AtSite], Tensor]
    ) -> Tensor:
        """The product of a site, in the stages that gates choose where there are gates."""
        gates = self._owner.gates
        return made(at) if gates is None else gates.product(at, x, weight, made)

    def _convolution(  # noqa: PLR0917 (torch's own signature)
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        at = self._owner.site("convolution")
        for pass_ in ("fprop", "dgrad", "wgrad"):
            if at.formats.operand("accumulator", pass_).format != "fp32":
                raise MethodError(
                    f"accumulator@{pass_}: {at.site.name} is a convolution, whose sums are in "
                    "fp32 here; narrow the role by a rule with match: {kind: linear}"
                )
        axes = weight.dim() - 2
        contraction = Convolution(
            stride=_per_axis(stride, axes),
            padding=_padding(padding, weight, _per_axis(dilation, axes)),
            dilation=_per_axis(dilation, axes),
            groups=groups,
        )

        def made(at: AtSite) -> Tensor:
            call = self._called(at)
            y = product(input, weight, contraction, call)
            if bias is not None:
                y = y + bias.reshape(-1, *[1] * axes)
            return _output(y, call)

        return self._chosen(at, input, weight, made)

    def _attention(  # noqa: PLR0917 (likewise)
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Two products around a softmax in float32."""
        scores_at = self._owner.site("attention", first="q", second="k_cache")
        values_at = self._owner.site("attention", first="probabilities", second="v_cache")
        if enable_gqa:
            copies = query.shape[-3] // key.shape[-3]
            key, value = (one.repeat_interleave(copies, dim=-3) for one in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        batched = Batched()
        scores = product(query, key.mT, batched, self._called(scores_at)) * scale
        if is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, float("-inf"))
            else:
                scores = scores + attn_mask
        shares = functional.dropout(torch.softmax(scores, dim=-1), dropout_p)
        return product(shares, value, batched, self._called(values_at))

    def _called(self, at: AtSite) -> Call:
        return at.called(self._call, learns=self._owner.training)


def _output(y: Tensor, call: Call) -> Tensor:
    """The result as it is written; its gradient passes."""
    if call.at.formats.named("output", "fprop") is None:
        return y
    return y + (call.output(y.detach()) - y.detach())


def _widened(x: object, narrow: torch.dtype) -> object:
    """A tensor of narrow numbers in float32, as products take it; its gradient is narrow again."""
    return x.float() if isinstance(x, Tensor) and x.dtype == narrow else x


def _is_weight(x: object) -> bool:
    """Whether a factor is a parameter (or a tensor in its place), or a view of one."""
    if not isinstance(x, Tensor) or x.dim() != 2:
        return False
    base = x._base if x._base is not None else x
    return isinstance(base, nn.Parameter) or (base.is_leaf and base.requires_grad)


def _sums(formats: SiteFormats, pass_: str) -> Matmul:
    name = formats.operand("accumulator", pass_).format
    if name == "fp32":
        return torch.matmul
    return lambda a, b: matmul(a.contiguous(), b.contiguous(), accumulator(name))


def _per_axis(given: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (given,) * axes if isinstance(given, int) else tuple(given)


def _padding(
    given: int | str | Sequence[int], weight: Tensor, dilation: Sequence[int]
) -> tuple[int, ...]:
    if not isinstance(given, str):
        return _per_axis(given, len(dilation))
    if given == "valid":
        return (0,) * len(dilation)
    reach = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
    if any(one % 2 for one in reach):
        raise MethodError("a convolution pads one side more than the other; pad it explicitly")
    return tuple(one // 2 for one in reach)


def _warn(owner: Quantized, func: Callable[..., Any]) -> None:
    """Says once of a model which of its products are left as they are."""
    name = getattr(func, "__name__", str(func))
    if name not in owner.left:
        owner.left.add(name)
        LOG.warning("%s is no product of a layer here, and stays in float32", name)
