"""Contradictions in a method: everything that needs more than one field to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dse.training.method import (
    Formats,
    LossScale,
    Method,
    Operand,
    Oscillation,
    Schedule,
    Split,
    Tuning,
    Update,
    operand_of,
)
from dse.training.roles import (
    FACTORS,
    MULTIPLIED,
    SENT,
    TRAINED,
    SiteFormats,
    keys_of,
    passes_of,
)
from hwmodels.errors import HardwareError, nearest
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES

GRADIENTS = ("activation_gradient", "weight_gradient")
FULL_RANGE = 8
"""Exponent bits of bf16 and fp32: a gradient that those hold needs no factor."""
UNTRAINABLE = ("gptq", "discquant", "blockwise")
BACKWARD = ("weight@dgrad", "activation@wgrad")
GROUPED = ("group", "channel", "token", "tensor")
WIDE_BITS = 16
"""Formats from which on a factor is as its product reads it, rotated or not."""
SMOOTHED = ("activation", "activation@fprop", "activation@wgrad")
SLOPED = ("weight@fprop", "activation@fprop", "weight", "activation")
STAGED_BY = {
    "starts": ("phase",), "cycles": ("cycle",),
    "window": ("plateau",), "every": ("plateau",), "threshold": ("plateau",),
    "decay": ("plateau",), "budget": ("gate",), "pressure": ("gate",),
}  # fmt: skip
"""The kinds of schedule that read an option."""
UPDATED_BY = {
    "momentum": ("sgd",),
    "betas": ("adamw", "hadam", "stable_adamw", "stable_spam"),
    "epsilon": ("adamw", "hadam", "stable_adamw", "stable_spam"),
    "reset_every": ("stable_spam",),
}
"""The optimizers that read an option."""
SCALED_BY = {
    "initial": ("static", "dynamic", "auto_mu", "compound"),
    "interval": ("dynamic", "auto_mu"),
    "saturated": ("auto_mu",),
}
"""The kinds of loss scale that read an option."""
DEALT_BY = {"concentration": ("dirichlet",), "shards": ("shards",)}
"""The kinds of split that read an option."""
UNSEEN = {
    "bias": "biases are added in float32",
    "stored": "training keeps saved_activation",
}
"""Roles of the table that training here does not emulate, and the reason."""


def problems(method: Method) -> Iterator[str]:
    """One line a contradiction, each opening with its field."""
    for where, formats in _sections(method):
        for key, given in formats.items():
            yield from (f"{where}.{key}: {words}" for words in _of_role(key, given))
    yield from _of_update(method)
    yield from _of_loss_scale(method)
    yield from _of_schedule(method.schedule)
    yield from _of_saved(method.roles)
    yield from _of_products(method)
    if method.oscillation is not None:
        yield from _of_oscillation(method, method.oscillation)
    yield from _of_rounds(method)
    if method.tuning is not None:
        yield from _of_tuning(method, method.tuning)
    if method.functions is not None:
        rewrites = method.functions.rewrites
        yield from (
            f"functions.rewrites: {name} stands there twice; leave one out"
            for name in dict.fromkeys(one for one in rewrites if rewrites.count(one) > 1)
        )


def _unread(
    where: str, kind: str, read_by: Mapping[str, Sequence[str]], given: object, plain: object
) -> Iterator[str]:
    """Options that were given and that this kind does not read.

    Args:
        where: The section of the file.
        kind: Chosen in it.
        read_by: Kinds by the option that they read.
        given: The section.
        plain: The same with its defaults.
    """
    for name, readers in read_by.items():
        if kind not in readers and getattr(given, name) != getattr(plain, name):
            yield (
                f"{where}.{name}: {kind} does not read it (read by: {', '.join(readers)}); "
                "leave it out"
            )


def _of_rounds(method: Method) -> Iterator[str]:
    named = [(where, key) for where, formats in _sections(method) for key in formats]
    if method.rounds is None:
        yield from (
            f"{where}.{key}: a run here is one worker, which sends nothing; add rounds: "
            "{clients: 8}"
            for where, key in named
            if key.partition("@")[0] in SENT
        )
        return
    if split := method.rounds.split:
        plain = Split(kind=split.kind)
        yield from _unread("rounds.split", split.kind, DEALT_BY, split, plain)
    for part in ("schedule", "oscillation"):
        if getattr(method, part) is not None:
            yield f"rounds: clients have no {part} here; leave one of both out"
    yield from (
        f"{where}.{key}: scales that are remembered would be those of the client before; leave "
        "them dynamic"
        for where, formats in _sections(method)
        for key, given in formats.items()
        if key.partition("@")[0] != "accumulator" and _is_delayed(given)
    )


def _of_saved(roles: Formats) -> Iterator[str]:
    """A saved activation that the backward pass does not read."""
    formats = SiteFormats([roles])
    try:
        of = formats.operand("activation", "wgrad").of
    except HardwareError:
        return  # it has its own line
    if of == "forward" and formats.named("saved_activation", "wgrad") is not None:
        yield (
            "roles.saved_activation: activation@wgrad reads what the forward product has rounded "
            "(of: forward); leave one of both out"
        )


def _of_tuning(method: Method, tuning: Tuning) -> Iterator[str]:
    for part in ("rounds", "oscillation"):
        if getattr(method, part) is not None:
            yield f"tuning: {part} is about weights that are trained; leave one of both out"
    if method.schedule is not None and method.schedule.kind in ("gate", "hasb"):
        yield f"tuning: a frozen network has no schedule of kind {method.schedule.kind} here"
    if tuning.prune is not None and tuning.density == 1:
        yield "tuning.prune: nothing is cut at a density of 1; give a smaller one, or leave it out"
    if tuning.distill is not None and tuning.prune is None:
        yield "tuning.distill: nothing is cut, so there is nobody to learn from; add prune"
    if tuning.grown is not None and tuning.grown <= tuning.rank:
        yield f"tuning.grown: {tuning.grown} is no more than the rank of {tuning.rank}"


def _of_oscillation(method: Method, watch: Oscillation) -> Iterator[str]:
    if watch.window >= watch.every:
        yield (
            f"oscillation.window: {watch.window} steps do not fit between two watches; expected "
            f"fewer than every: {watch.every}"
        )
    weights = []
    for where, formats in _sections(method):
        named = SiteFormats([formats]).named("weight", "fprop")
        if named is None:
            continue
        try:
            quantizer = named.quantizer
        except HardwareError:
            return  # it has its own line
        weights.append(quantizer.format.element.bits < WIDE_BITS)
        if quantizer.is_random or quantizer.timing == "delayed" or named.hadamard:
            yield (
                f"{where}: oscillation looks at one value after another of weight@fprop, which is "
                f"drawn, rotated or scaled by steps before in {quantizer.name}; leave one of them "
                "out"
            )
    if not any(weights):
        yield "oscillation: no weight is rounded in fprop; add roles: {weight: nvfp4}"


def _of_products(method: Method) -> Iterator[str]:
    """Factors of a product that are rotated differently, which no rotation of both undoes."""
    stages = method.schedule.stages if method.schedule else ()
    layered = [("roles", [method.roles])]
    layered += [
        (f"schedule.stages.{index}", [method.roles, one]) for index, one in enumerate(stages)
    ]
    layered += [
        (f"rules.{index}.roles", [method.roles, one.roles])
        for index, one in enumerate(method.rules)
    ]
    for where, layers in layered:
        formats = SiteFormats(layers)
        for pass_, factors in MULTIPLIED.items():
            roles = factors[::-1]
            try:
                operands = [formats.operand(role, pass_) for role in roles]
                narrow = [one for one in operands if one.quantizer.format.element.bits < WIDE_BITS]
            except HardwareError:
                return  # it has its own line
            if len({(one.hadamard, one.signs) for one in narrow}) > 1:
                yield (
                    f"{where}: {' and '.join(f'{role}@{pass_}' for role in roles)} are multiplied "
                    "with each other and rotated differently; give both one hadamard and signs"
                )


def _sections(method: Method) -> Iterator[tuple[str, Formats]]:
    yield "roles", method.roles
    for index, rule in enumerate(method.rules):
        yield f"rules.{index}.roles", rule.roles
    for index, stage in enumerate(method.schedule.stages if method.schedule else ()):
        yield f"schedule.stages.{index}", stage


def _of_schedule(schedule: Schedule | None) -> Iterator[str]:
    if schedule is None:
        return
    plain = Schedule(stages=schedule.stages, kind=schedule.kind)
    yield from _unread("schedule", schedule.kind, STAGED_BY, schedule, plain)
    if all(one == schedule.stages[0] for one in schedule.stages):
        yield "schedule.stages: all are the same, so that nothing changes; leave the schedule out"
    wanted = len(schedule.stages) - 1
    if schedule.starts and len(schedule.starts) != wanted:
        yield (
            f"schedule.starts: expected {wanted}, one for each stage after the first, got "
            f"{len(schedule.starts)}"
        )
    if list(schedule.starts) != sorted(schedule.starts):
        yield f"schedule.starts: expected rising shares of the run, got {schedule.starts}"
    for index, stage in enumerate(schedule.stages):
        yield from (
            f"schedule.stages.{index}.{key}: scales that are remembered belong to one format; "
            "leave them dynamic"
            for key, given in stage.items()
            if key.partition("@")[0] != "accumulator" and _is_delayed(given)
        )


def _is_delayed(given: str | Operand) -> bool:
    try:
        return operand_of(given).quantizer.timing == "delayed"
    except HardwareError:
        return False  # it has its own line


def _of_role(key: str, given: str | Operand) -> Iterator[str]:
    role, _, pass_ = key.partition("@")
    if key == "*":
        role = FACTORS[0]
    elif role in UNSEEN:
        yield f"not emulated: {UNSEEN[role]}"
        return
    elif role not in TRAINED:
        yield f"no such role{nearest(role, TRAINED)} (known: {', '.join(TRAINED)})"
        return
    elif pass_ and pass_ not in passes_of(role):
        known = ", ".join(list(keys_of(role))[1:])
        hint = nearest(pass_, passes_of(role))
        yield f"role {role} has no part in pass {pass_!r}{hint}; expected {known}"
        return
    operand = operand_of(given)
    try:
        if role == "accumulator":
            if accumulator(operand.format).kind == "integer":
                yield f"{operand.format}: sums of integer codes; expected a float (fp16) or quire"
            return
        quantizer = operand.quantizer
    except HardwareError as error:
        yield str(error)
        return
    yield from _of_quantizer(quantizer, role)
    yield from _of_narrowing(operand, quantizer)
    yield from _of_operand(operand, quantizer, key)


def _of_quantizer(quantizer: Quantizer, role: str) -> Iterator[str]:
    if quantizer.timing == "static":
        yield f"{quantizer.name}: static scales need calibration; expected dynamic or delayed ones"
    if quantizer.rounding in UNTRAINABLE:
        yield f"{quantizer.name}: rounding {quantizer.rounding} is chosen once, not at each step"
    if quantizer.statistic == "learned":
        yield f"{quantizer.name}: scales are not trained here; expected another statistic"
    delayed = quantizer.timing == "delayed"
    if delayed and quantizer.format.granularity != "tensor":
        yield f"{quantizer.name}: delayed scales are one a tensor; expected e4m3_tensor:delayed"
    if delayed and quantizer.format.scale is None:
        yield f"{quantizer.name}: the format has no scale to delay; expected e4m3_tensor:delayed"
    if delayed and ROLES[role].operands.keys() == {"update"}:
        yield f"{quantizer.name}: scales of states are those of the states; leave them dynamic"


def _of_narrowing(operand: Operand, quantizer: Quantizer) -> Iterator[str]:
    """Contradictions of rounding that starts from codes of more bits, at each step anew."""
    if not quantizer.narrows_codes:
        return
    if quantizer.narrowing_problem:
        yield quantizer.narrowing_problem
    if quantizer.timing == "delayed" or operand.headroom != 1:
        yield f"{quantizer.name}: scales are those of the wider codes; leave delayed and headroom"
    if operand.gradient != "ste" or operand.scale_gradient != "none":
        yield f"{quantizer.name}: its derivative is 1 here; leave gradient and scale_gradient out"


def _of_operand(operand: Operand, quantizer: Quantizer, key: str) -> Iterator[str]:
    yield from _of_rotation(operand)
    yield from _of_scales(operand, quantizer)
    if operand.of == "forward" and key not in BACKWARD:
        yield f"of: forward values are read again by {' and '.join(BACKWARD)} only"
    if operand.gradient != "ste" and key not in SLOPED:
        yield f"gradient: only what the forward pass rounds has one: {', '.join(SLOPED)}"
    if operand.scale_gradient != "none":
        yield from _of_scale_gradient(operand, quantizer, key)
    if operand.smooth and operand.hadamard:
        yield "smooth: a rotation mixes the channels that it scales; leave one of them out"
    if operand.smooth and key not in SMOOTHED:
        yield f"smooth: only inputs of layers have channels to scale: {', '.join(SMOOTHED)}"


def _of_scale_gradient(operand: Operand, quantizer: Quantizer, key: str) -> Iterator[str]:
    if key not in SLOPED:
        yield f"scale_gradient: only what the forward pass rounds has one: {', '.join(SLOPED)}"
    format = quantizer.format
    if format.scale is None or format.granularity not in GROUPED:
        yield f"scale_gradient: needs scales of groups along a sum, not {quantizer.name}"
    if quantizer.statistic != "absmax" or quantizer.timing == "delayed":
        yield f"scale_gradient: needs scales by the largest magnitude now, not {quantizer.name}"
    if operand.hadamard or operand.smooth or operand.scales != "plain":
        yield "scale_gradient: is one of plain scales; leave hadamard, smooth and scales out"


def _of_rotation(operand: Operand) -> Iterator[str]:
    size = operand.hadamard
    if size & (size - 1):
        yield f"hadamard: expected a power of two, got {size}"
    if operand.gradient != "ste" and size:
        yield "gradient: a relaxation is one of single values, not of rotated ones; leave one out"
    if operand.signs != "none" and not size:
        yield "signs: there is no rotation; add hadamard: 16"


def _of_scales(operand: Operand, quantizer: Quantizer) -> Iterator[str]:
    format, scale = quantizer.format, quantizer.format.scale
    fine = scale is not None and scale.encoding.kind != "exponent"
    if operand.scales == "eden":
        if operand.signs != "fresh":
            yield "scales: eden is unbiased over rotations; add hadamard: 128, signs: fresh"
        if format.granularity != "group" or not fine:
            yield f"scales: eden needs groups whose scales have a mantissa, not {quantizer.name}"
        elif operand.hadamard % format.group:
            yield f"scales: eden corrects whole groups of {format.group}, not {operand.hadamard}"
    if operand.scales == "four_over_six" and not (
        format.granularity in ("group", "block") and format.element.name == "e2m1" and fine
    ):
        yield f"scales: four_over_six needs e2m1 in blocks (nvfp4), not {quantizer.name}"
    if operand.headroom != 1 and scale is None:
        yield f"headroom: {quantizer.name} has no scales to raise"


def _of_update(method: Method) -> Iterator[str]:
    update, mode = method.update, method.update.mode
    yield from _unread("update", update.optimizer, UPDATED_BY, update, Update())
    if update.optimizer == "sgd":
        yield from (
            f"{where}.{key}: sgd has one moment, optimizer_m; leave it out"
            for where, formats in _sections(method)
            for key in formats
            if key.partition("@")[0] == "optimizer_v"
        )
    kept = {key: value for _, formats in _sections(method) for key, value in formats.items()}
    try:
        master = operand_of(kept.get("master_weight", "fp32")).is_wide
    except HardwareError:
        return  # it has its own line
    if mode != "master" and master:
        yield (
            f"update.mode: {mode} is a way to round what is kept, and weights are kept in fp32; "
            "add roles: {master_weight: bf16}, or leave mode: master"
        )


def _of_loss_scale(method: Method) -> Iterator[str]:
    kind = method.loss_scale.kind
    yield from _unread("loss_scale", kind, SCALED_BY, method.loss_scale, LossScale())
    if kind == "none":
        return
    stages = method.schedule.stages if method.schedule else ()
    layers = (method.roles, *stages)
    narrow = [role for role in GRADIENTS if any(_is_narrow(one, role) for one in layers)]
    if not narrow:
        yield (
            f"loss_scale.kind: {kind}, but no gradient is in a format of less range than bf16; "
            f"add one ({', '.join(GRADIENTS)}: fp16), or leave the factor out"
        )
    if kind == "compound" and method.update.optimizer != "hadam":
        yield (
            "loss_scale.kind: compound leaves the factor in the moments, and only hadam's follow "
            f"it; expected update.optimizer: hadam, got {method.update.optimizer}"
        )
    if kind == "auto_mu" and not _is_watched(method.roles):
        yield (
            "loss_scale.kind: auto_mu counts weight gradients at the end of their format, which "
            "scales of their own would hide; add roles: {weight_gradient: e4m3}"
        )


def _is_watched(formats: Mapping[str, str | Operand]) -> bool:
    """Whether weight gradients are in a narrow format without scales."""
    given = formats.get("weight_gradient") or formats.get("weight_gradient@wgrad")
    try:
        return given is not None and operand_of(given).quantizer.format.scale is None
    except HardwareError:
        return True  # it has its own line


def _is_narrow(formats: Mapping[str, str | Operand], role: str) -> bool:
    """Whether a pass of a role has a format of less range than bf16."""
    stars = ("*",) if role in FACTORS else ()
    for key in (*keys_of(role), *stars):
        if key in formats:
            try:
                element = operand_of(formats[key]).quantizer.format.element
            except HardwareError:
                return True  # it has its own line
            if element.kind != "float" or element.exponent_bits < FULL_RANGE:
                return True
    return False
