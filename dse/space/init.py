"""A commented space file for a model, so that nobody starts from an empty page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dse.data import graph_shapes, source_sizes
from dse.errors import GraphError
from dse.graph.annotations import annotations_of
from dse.graph.ir.site import Region
from dse.graph.lower.work import lower
from dse.graph.onnx.dimension import dimensions, named_shape
from dse.graph.onnx.rank import SUFFIX
from dse.imports.facts import facts_of
from dse.model import PAST, Model
from dse.space.annotated import annotated_candidates
from dse.space.build import is_searched
from dse.space.native import Platforms, are_blocks, are_shared, native_uses, ranges_of
from dse.space.platform import platform_of
from dse.space.schema import APART, Mode, Rule, Target, Tie
from hwmodels.devices.device import Device
from hwmodels.work.work import RegionWork

LIKELY_SIZES = {"batch": 1, "sequence": 512, "past": 0}
"""Values of symbolic dimensions by name, for a first draft; others start at 1."""
ANSWER = 128
"""Tokens that a drafted request generates, where the model's context allows."""
LOAD = [
    "  # Requests that wait for one another make ttft_p99_s, load_cost_per_mtok, ... columns.",
    '  # load: {bounds: ["ttft_p99_s<=1", "tpot_p99_s<=0.05"]}  # or {rate: 3}, {clients: 64}',
]
"""Lines behind the phases of a served model's scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A user's command line about a model without a space file."""

    targets: tuple[Target, ...] = (Target(device="h100-sxm", runtime="vllm"),)
    data: str = ""
    objectives: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    trials: int = 48
    seed: int = 0
    dims: dict[str, int] = field(default_factory=dict)
    folder: Path = Path()
    """The folder of the data's relative path."""
    devices: Mapping[str, Device] = field(default_factory=dict)
    """By the name that a target uses, where it is not one of the catalogue or a file."""
    served: bool = True
    """Whether an imported decoder is drafted as it is served; without, its phases are one call,
    which is enough where only candidates are asked for."""


def space_text(model: Model, location: str, draft: Draft) -> str:
    """A space file for a model, as YAML with comments.

    Args:
        model: the loaded model.
        location: what the file says under `model`.
        draft: what is known already.
    """
    model = _as_executed(model, draft)
    found = [region for region in model.analysis.regions if is_searched(region)]
    if not found:
        left = (*model.analysis.quantized, *model.analysis.dequantized)
        why = "has no Gemm, MatMul, Conv or attention"
        if left:
            why = f"is quantized already ({', '.join(left[:3])}{', ...' if left[3:] else ''})"
        raise GraphError(f"{location}: {why}, so no format can be chosen")
    return "\n".join(
        [
            f"# Which parts of {model.name} can take fewer bits, and what does it buy?",
            f"model: {location}",
            "",
            *_data_lines(draft),
            "",
            *_scenario_lines(model, draft),
            "",
            *_target_lines(draft),
            "",
            *_matrix_lines(model),
            *(_annotated_lines(model, location) or _native_lines(model, found, draft)),
            "",
            *_objective_lines(draft),
            "",
            f"search: {{trials: {draft.trials}, seed: {draft.seed}}}",
            "",
        ]
    )


def _as_executed(model: Model, draft: Draft) -> Model:
    """The model with matrices of one input apart, where every target stores each in its own type.

    Activations that several products share are not quantized there, so that a choice of one binds
    no other.
    """
    annotations = annotations_of(model.analysis)
    named = annotations is not None and annotations.candidates
    if named or any(runtime.fuses_shared_input for _, runtime in _platforms(draft)):
        return model
    apart = replace(model, apart=True)
    one_by_one = [region for region in apart.analysis.regions if is_searched(region)]
    if len(apart.analysis.regions) == len(model.analysis.regions):
        return model
    works, platforms = _works(apart, draft), _platforms(draft)
    gemms = [region for region in one_by_one if region.kind == "gemm"]
    offered = native_uses(gemms, works, platforms)
    return apart if are_blocks(offered) else model


def _matrix_lines(model: Model) -> list[str]:
    if not model.apart:
        return []
    return [
        "# Matrices that read one input (query, key and value; gate and up) are decided one by",
        "# one: the targets store each in a type of its own.",
        f"matrices: {APART}",
        "",
    ]


def _data_lines(draft: Draft) -> list[str]:
    source = draft.data or "FILL-ME-IN.npz"
    comment = (
        []
        if draft.data
        else [
            "  # A zoo name (zoo:byte-gpt), an .npz with arrays named as the graph's inputs (plus",
            "  # labels), a token file, a folder of images by class, or module:function.",
        ]
    )
    return [
        "data:",
        *comment,
        f"  source: {source}",
        "  calibration: 8   # samples that scales are calibrated on",
        "  search: 16       # samples that the search measures quality on",
        "  report: 16       # samples that the front is decided on",
    ]


def _scenario_lines(model: Model, draft: Draft) -> list[str]:
    phases = _served_phases(model, draft)
    about = [
        "# A batch of requests: every prompt alone, then the answers together, token by token;",
        "# sizes of decode are those of its middle, shares are numbers of calls.",
    ]
    if not phases:
        phases = {"call": (1, _dims(model, draft))}
        about = [
            "# How the model is called where it is deployed; more phases (prefill, decode) add",
            "# up, weighted by their share.",
        ]
    listed = [_phase(n, *phase) for n, phase in phases.items()]
    load = LOAD if "prefill" in phases else []
    return [*about, "scenario:", "  phases:", *listed, *load]


def _phase(name: str, share: int, dims: Mapping[str, int]) -> str:
    inner = ", ".join(f"{size}: {value}" for size, value in dims.items())
    return f"    {name}: {{share: {share}, dims: {{{inner}}}}}"


def _served_phases(model: Model, draft: Draft) -> dict[str, tuple[int, dict[str, int]]]:
    """Prefill and decode of an imported decoder with a cache, within its context; else nothing.

    A request whose sizes the caller gives is one call of them.
    """
    facts = facts_of(model.graph)
    if not draft.served or facts is None or not facts.causal or PAST in draft.dims:
        return {}
    # The form that keeps keys and values takes as long to export again; `dse check` tries it.
    dims = _dims(model, draft)
    if model.served is None or not {"sequence", "batch"} <= dims.keys():
        return {}
    context = facts.context or dims["sequence"] + ANSWER
    given = "sequence" in draft.dims
    prompt = dims["sequence"] if given else max(min(dims["sequence"], context // 2), 1)
    answer = max(min(ANSWER, context - prompt), 1)
    requests = dims["batch"]
    return {
        "prefill": (requests, {**dims, "batch": 1, "sequence": prompt, PAST: 0}),
        "decode": (answer, {**dims, "sequence": 1, PAST: prompt + answer // 2}),
    }


def _target_lines(draft: Draft) -> list[str]:
    lines = ["targets:  # see: dse devices, dse runtimes"]
    for target in draft.targets:
        name = f"name: {target.name}, " if target.name else ""
        device, _ = platform_of(target, Path(), draft.devices)
        driver = target.runtime or device.default_runtime
        lines.append(f"  - {{{name}device: {target.device}, runtime: {driver}}}")
    return lines


def _platforms(draft: Draft) -> Platforms:
    return [platform_of(target, Path(), draft.devices) for target in draft.targets]


def _works(model: Model, draft: Draft) -> dict[str, RegionWork]:
    """Sizes of regions at the draft's dimensions: a kernel may want multiples of some."""
    work = lower(model.analysis, _dims(model, draft))
    return {region.name: region for region in work.regions}


def _dims(model: Model, draft: Draft) -> dict[str, int]:
    likely = {name: LIKELY_SIZES.get(name, 1) for name in dimensions(model.graph)}
    facts = facts_of(model.graph)
    if facts is not None and facts.context and "sequence" in likely:
        likely["sequence"] = min(likely["sequence"], facts.context)
    named = {value: named_shape(model.graph, value) or () for value in model.graph.inputs}
    taken = graph_shapes(model.graph)
    shown = source_sizes(draft.data, draft.folder, named, taken) if draft.data else {}
    told = {f"{value}{SUFFIX}": rank for value, rank in model.graph.told_ranks.items()}
    known = {name: size for name, size in shown.items() if name in likely}
    return likely | known | told | draft.dims


def _annotated_lines(model: Model, location: str) -> list[str]:
    """The candidates that the model's own metadata name; nothing where there are none."""
    annotations = annotations_of(model.analysis)
    if annotations is None or not annotations.candidates:
        return []
    found = annotated_candidates(annotations, model.analysis.regions, origin=location)
    return [
        "# What the model's annotations name (docs/annotations.md); the first rule that matches a",
        "# region wins.",
        "candidates:",
        *(_flow(rule) for rule in found.rules),
        *(["ties:"] if found.ties else []),
        *(_flow(tie) for tie in found.ties),
    ]


def _flow(entry: Rule | Tie) -> str:
    """A list entry on one line: JSON is YAML."""
    return f"  - {json.dumps(entry.model_dump(mode='json', exclude_unset=True))}"


def _native_lines(model: Model, found: Sequence[Region], draft: Draft) -> list[str]:
    return _candidate_lines(found, _works(model, draft), _platforms(draft))


def _candidate_lines(
    found: Sequence[Region], works: Mapping[str, RegionWork], platforms: Platforms
) -> list[str]:
    """One rule a kind and role, so that each can be edited on its own."""
    groups: dict[tuple[str, str], list[Region]] = {}
    for region in found:
        groups.setdefault((region.kind, region.role), []).append(region)
    lines = [
        "# The first rule that matches a region wins; see: dse formats. These run natively on",
        "# every target where there is such a choice (dse legal says why others do not).",
        "candidates:",
    ]
    every: list[str | Mode] = []
    for (kind, role), regions in groups.items():
        count = len(regions)
        offered = native_uses(regions, works, platforms)
        every += offered
        uses = ", ".join(_use(use) for use in offered)
        regions_word = "region" if count == 1 else "regions"
        held = [works[region.name] for region in regions if region.name in works]
        shared = len(platforms) < 2 or are_shared(held, platforms, offered)
        apart = "" if shared else f"; none is native on every target: {_each_has(platforms)}"
        lines += [
            f"  - match: {{kind: {kind}, role: {role}}}  # {count} {regions_word}{apart}",
            f"    use: [{uses}]",
        ]
    return [*lines, *_range_lines(every)]


def _range_lines(uses: Sequence[str | Mode]) -> list[str]:
    """The ranges that a search is to try, where some candidate leaves one open."""
    words = ranges_of(uses)
    if not words:
        return []
    return [
        "# Ranges of their static activations: the search takes the one that loses least on its",
        "# split, for the whole network.",
        f"ranges: [{', '.join(words)}]",
    ]


def _each_has(platforms: Platforms) -> str:
    names = " and ".join(f"{device.name}:{runtime.name}" for device, runtime in platforms)
    return f"{names} have their own"


def _use(use: str | Mode) -> str:
    if isinstance(use, str):
        return use
    fields = use.model_dump(exclude_none=True)
    return "{" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}"


def _objective_lines(draft: Draft) -> list[str]:
    prefix = f"{draft.targets[0].label}." if len(draft.targets) > 1 else ""
    objectives = draft.objectives or ("quality_loss", f"{prefix}latency_s")
    lines = [f"objectives: [{', '.join(objectives)}]"]
    if draft.constraints:
        lines.append(f"constraints: [{', '.join(repr(text) for text in draft.constraints)}]")
    return lines
