"""`dse init`, `dse check`: space files and what they say of a model."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.platform import DEVICE_RUNTIME
from dse.cli.screen import JsonFlag, Rows, Screen, Value

if TYPE_CHECKING:
    from dse.evaluate.costs import Costs
    from dse.space.check import SpaceSummary

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="An ONNX file, a Hugging Face folder, or zoo:NAME."),
]


def init(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="SPACE.yaml", help="To write.")],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "--device", metavar=DEVICE_RUNTIME, help="Repeat for several."),
    ] = None,
    data: Annotated[str, typer.Option(help="Where samples come from.")] = "",
) -> None:
    """Write a commented space for a model."""
    from dse.errors import SpaceError  # noqa: PLC0415
    from dse.explore.run import parse_targets  # noqa: PLC0415
    from dse.files import write_atomically  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.init import Draft, space_text  # noqa: PLC0415

    screen: Screen = context.obj
    if out.exists():
        raise SpaceError(f"{out}: exists already; choose another --out")
    opened = open_model(model)
    location = model if model.startswith("zoo:") else os.path.relpath(model, out.parent)
    draft = Draft(targets=parse_targets(target or ()) or Draft().targets, data=data)
    text = space_text(opened, location, draft)
    write_atomically(out, text)
    path = shlex.quote(str(out))
    screen.remark(f"wrote {out}; read it, then: dse check {path} && dse search {path}")


def check(
    context: typer.Context,
    space: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="A space file, or an annotated model.")
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
    from dse.explore.run import Overrides, open_space  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.check import summarised  # noqa: PLC0415

    screen: Screen = context.obj
    overrides = Overrides(targets=tuple(target or ()), data=data or None)
    opened, _, folder = open_space(str(space), overrides, needs_data=False)
    summary = summarised(opened, origin=str(space), folder=folder)
    _check_method(summary.space.search.method, str(space))
    named = summary.space.cost_model
    costed = open_model(named, folder=folder) if named else summary.model
    costs = build_costs(
        summary.space,
        summary.problem,
        summary.model.analysis.regions,
        costed.analysis,
        origin=str(space),
        folder=folder,
    )
    support = _support(costs)
    read = summary.space
    outputs = described_outputs(summary.model.analysis, read.data, read.quality, folder)
    if json:
        screen.json({**_facts(summary), "outputs": outputs, "choices": support.records()})
        return
    for remark in costs.remarks:
        screen.remark(remark)
    screen.facts(_facts(summary))
    for output in outputs:
        screen.result(f"output {output}")
    screen.result("")
    screen.table(support)


COMMANDS = (init, check)


def _facts(summary: SpaceSummary) -> dict[str, Value]:
    variables = summary.problem.variables
    kinds = Counter(f"{one.kind} {one.role}" for one in variables)
    return {
        "model": summary.model.name,
        "cost_model": summary.space.cost_model or "the model itself",
        "variables": f"{len(variables)} (" + ", ".join(f"{n} {k}" for k, n in kinds.items()) + ")",
        "sites": summary.site_count,
        "ties": ", ".join(f"{name} = {len(held)} regions" for name, held in summary.tied.items())
        or "none",
        "assignments": f"{summary.problem.size:.3g}",
        "uniform": ", ".join(summary.problem.uniforms),
        "trials": summary.space.search.trials,
        "runs_code_of": ", ".join(summary.code) or "nobody but dse",
    }


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


def _check_method(name: str, origin: str) -> None:
    """A search method must be known; their table loads Optuna, so the default is not asked."""
    from dse.space.schema import Search  # noqa: PLC0415

    if name != Search().method:
        from dse.explore.study.methods import check_name  # noqa: PLC0415

        check_name(name, origin=origin)
