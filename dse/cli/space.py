"""`dse init`, `dse check`: space files and what they say of a model; templates of device files."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.device.template import refuse_kinds, write_template
from dse.cli.dims import Dim, check_names, parsed
from dse.cli.platform import DEVICE_RUNTIME
from dse.cli.screen import JsonFlag, Rows, Screen, Value

if TYPE_CHECKING:
    from dse.evaluate.costs import Costs
    from dse.model import Model as OpenedModel
    from dse.space.check import SpaceSummary
    from dse.space.schema import Space


def init(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file, a Hugging Face folder, or zoo:NAME; none with --device KIND.",
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.yaml", help="To write.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "--device",
            metavar=DEVICE_RUNTIME,
            help="Of MODEL's space; repeat for several. Without MODEL, array, cpu, gpu or npu: a "
            "device file to fill in.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="Where samples come from.")] = "",
    dim: Dim = None,
) -> None:
    """Write a commented space for a model, or without one a device's file (--device KIND)."""
    from dse.data import source_ranks  # noqa: PLC0415
    from dse.errors import SpaceError  # noqa: PLC0415
    from dse.explore.run import parse_targets  # noqa: PLC0415
    from dse.files import write_atomically  # noqa: PLC0415
    from dse.graph.onnx.rank import ranks_in  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.init import Draft, space_text  # noqa: PLC0415
    from dse.space.load import parse_space  # noqa: PLC0415

    screen: Screen = context.obj
    if model is None:
        write_template(screen, target or (), out, of_model=bool(data or dim))
        return
    refuse_kinds(target or ())
    if out.exists():
        raise SpaceError(f"{out}: exists already; choose another --out")
    dims = parsed(dim or ())
    if data and Path(data).exists():
        data = os.path.relpath(data, out.parent)
    opened = open_model(model, ranks={**source_ranks(data, out.parent), **ranks_in(dims)})
    opened = opened.priced(dims)
    check_names(opened.graph, dims)
    location = model if model.startswith("zoo:") else os.path.relpath(model, out.parent)
    draft = Draft(
        targets=parse_targets(target or ()) or Draft().targets,
        data=data,
        folder=out.parent,
        dims=dims,
    )
    text = space_text(opened, location, draft)
    for remark in _remarks(parse_space(text, origin=str(out)), opened, out):
        screen.remark(remark)
    write_atomically(out, text)
    path = shlex.quote(str(out))
    screen.remark(f"wrote {out}; read it, then: dse check {path} && dse search {path}")


def check(
    context: typer.Context,
    space: Annotated[
        Path,
        typer.Argument(
            metavar="SPACE.yaml",
            help="A space file, an annotated model, or a method of training.",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "--device", metavar=DEVICE_RUNTIME, help="Of a model's space."),
    ] = None,
    data: Annotated[str, typer.Option(help="Of a model's space.")] = "",
    *,
    json: JsonFlag = False,
) -> None:
    """Check a space: size, variables, ties, native choices."""
    from dse.evaluate.cost_tables import build_costs  # noqa: PLC0415
    from dse.evaluate.described import described_outputs  # noqa: PLC0415
    from dse.space.kind import kind_of  # noqa: PLC0415
    from dse.space.opened import cost_model_of  # noqa: PLC0415

    screen: Screen = context.obj
    kind = kind_of(space)
    if kind == "training":
        from dse.cli.methods import check_methods  # noqa: PLC0415 (it loads torch)

        check_methods(screen, space, as_json=json)
        return
    if kind == "method":
        from dse.cli.methods import check_method  # noqa: PLC0415

        check_method(screen, space, as_json=json)
        return
    summary, folder = _summary(space, target or (), data)
    _check_method(summary.space.search.method, str(space))
    cost_model = cost_model_of(summary.space, folder)
    costed = cost_model or summary.model
    costs = build_costs(
        summary.space,
        summary.problem,
        summary.model.analysis.regions,
        costed.priced(summary.space.scenario.dims).analysis,
        origin=str(space),
        folder=folder,
        same_network=cost_model is None,
        hardware=summary.hardware,
    )
    if summary.hardware is not None:
        _check_columns(summary.space, costs, str(space))
    support, varied = _support(costs), _hardware(summary)
    read = summary.space
    outputs = described_outputs(summary.model.analysis, read.data, read.quality, folder)
    if json:
        screen.json(
            {
                **_facts(summary),
                "outputs": outputs,
                "choices": support.records(),
                **({"hardware": varied.records()} if varied else {}),
            }
        )
        return
    for remark in (*costs.remarks, *(summary.hardware.remarks if summary.hardware else ())):
        screen.remark(remark)
    screen.facts(_facts(summary))
    for output in outputs:
        screen.result(f"output {output}")
    screen.result("")
    screen.table(support)
    if varied:
        screen.result("")
        screen.table(varied)


def _remarks(space: Space, opened: OpenedModel, out: Path) -> tuple[str, ...]:
    """Remarks on a drafted space: its targets, and assumptions of the model's price.

    A form with a cache would be exported for that; `dse check` does, and says what there is to it.
    """
    from dse.evaluate.cost_tables import build_costs  # noqa: PLC0415
    from dse.space.targeted import targeted_problem  # noqa: PLC0415

    return build_costs(
        _without_cache(space, opened),
        targeted_problem(space, opened.analysis, out.parent, origin=str(out)),
        opened.analysis.regions,
        opened.analysis,
        origin=str(out),
        folder=out.parent,
        same_network=True,
    ).remarks


def _without_cache(space: Space, opened: OpenedModel) -> Space:
    """The space with its first phase alone, as a call of the form that was opened."""
    from dse.model import PAST  # noqa: PLC0415

    if opened.served is None or PAST not in space.scenario.dims:
        return space
    name, phase = next(iter(space.scenario.phases.items()))
    dims = {size: value for size, value in phase.dims.items() if size != PAST}
    phases = {name: phase.model_copy(update={"dims": dims})}
    scenario = space.scenario.model_copy(update={"phases": phases})
    return space.model_copy(update={"scenario": scenario})


COMMANDS = (init, check)


def _summary(
    space: Path, targets: list[str] | tuple[str, ...], data: str
) -> tuple[SpaceSummary, Path]:
    """A space, or the draft of a model, and the folder that its paths are relative to."""
    from dse.space.check import describe, summarised  # noqa: PLC0415
    from hwmodels.yaml_file import SUFFIXES  # noqa: PLC0415

    if space.suffix in SUFFIXES and not targets and not data:
        return describe(space), space.parent
    from dse.explore.run import Overrides, open_space  # noqa: PLC0415 (it loads Optuna)

    overrides = Overrides(targets=tuple(targets), data=data or None)
    opened, origin, folder = open_space(str(space), overrides, needs_data=False)
    return summarised(opened, origin=origin, folder=folder), folder


def _facts(summary: SpaceSummary) -> dict[str, Value]:
    variables = summary.problem.precision.variables
    kinds = Counter(f"{one.kind} {one.role}" for one in variables)
    return {
        "model": summary.model.name,
        "cost_model": summary.space.cost_model or "the model itself",
        "variables": f"{len(variables)} (" + ", ".join(f"{n} {k}" for k, n in kinds.items()) + ")",
        "sites": summary.site_count,
        "ties": ", ".join(f"{name} = {len(held)} regions" for name, held in summary.tied.items())
        or "none",
        "assignments": f"{summary.problem.assignments:.3g}",
        **_hardware_facts(summary),
        "uniform": ", ".join(summary.problem.uniforms),
        "trials": summary.space.search.trials,
        "runs_code_of": ", ".join(summary.code) or "nobody but dse",
    }


def _hardware_facts(summary: SpaceSummary) -> dict[str, Value]:
    """The size of the hardware's grid, how much of it can be built, how much is priced."""
    found, section = summary.hardware, summary.space.hardware
    if found is None or section is None:
        return {}
    refused, tried, reason = found.unbuildable
    words = [f"{found.size} points of {found.file.device.name}"]
    if found.size > section.points:
        words.append(f"{section.points} of them are sampled")
    if refused:
        words.append(f"{refused} of {tried} that were tried can be no device ({reason})")
    return {"hardware": "; ".join(words), "points": f"{summary.problem.size:.3g}"}


def _hardware(summary: SpaceSummary) -> Rows | None:
    """Parameters of a device that vary, their values, and those of the file."""
    if summary.hardware is None:
        return None
    return Rows(
        columns=("hardware", "values", "of_the_file", "start"),
        rows=tuple(
            (one.name, ", ".join(option.label for option in one.options), one.said,
             one.options[one.start].label)
            for one in summary.hardware.parameters
        ),
    )  # fmt: skip


def _support(costs: Costs) -> Rows:
    """Regions by status, for every choice on every target, and the first reason."""
    statuses: dict[tuple[str, str], dict[str, str]] = {}
    notes: dict[tuple[str, str], str] = {}
    for row in costs.rows():
        key = (str(row["choice"]), str(row["target"]))
        if row["variable"]:
            statuses.setdefault(key, {}).setdefault(str(row["region"]), str(row["status"]))
            notes[key] = notes.get(key) or str(row["note"])
    return Rows(
        columns=("choice", "target", "regions", "why"),
        rows=tuple(
            (*key, ", ".join(f"{n} {s}" for s, n in Counter(by_region.values()).most_common()),
             notes[key])
            for key, by_region in statuses.items()
        ),
    )  # fmt: skip


def _check_columns(space: Space, costs: Costs, origin: str) -> None:
    """Objectives and constraints must have figures behind them, where hardware varies."""
    from dse.explore.problem.constraint import UNITS, parse_constraints  # noqa: PLC0415
    from dse.explore.problem.design import cost_columns  # noqa: PLC0415 (it loads Optuna)

    cost_columns(space, costs, origin)
    labels = [target.label for target in costs.targets]
    # Names alone are checked here: no matter how many bytes a unit is.
    units = dict.fromkeys(UNITS, 1.0)
    parse_constraints(space.constraints, costs.columns, origin=origin, targets=labels, units=units)


def _check_method(name: str, origin: str) -> None:
    """A search method must be known; their table loads Optuna, so the default is not asked."""
    from dse.space.schema import Search  # noqa: PLC0415

    if name != Search().method:
        from dse.explore.study.methods import check_name  # noqa: PLC0415

        check_name(name, origin=origin)
