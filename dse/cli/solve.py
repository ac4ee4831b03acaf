"""`dse solve`: the best assignment within a budget, by scores alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.platform import DEVICE_RUNTIME
from dse.cli.screen import JsonFlag, Screen, Value

if TYPE_CHECKING:
    from dse.explore.problem.design import Design
    from dse.explore.solution import Solution


def solve(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="What to choose for.")],
    *,
    scores: Annotated[
        Path,
        typer.Option(
            metavar="FILE.csv|RUN",
            help="A table of: dse sensitivity -o; or a proxy's run folder, matched by role and "
            "relative depth.",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "--device", metavar=DEVICE_RUNTIME, help="Price it on this; repeat."
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="'COLUMN<=NUMBER'", help="Besides the space's; repeat for several."),
    ] = None,
    gap: Annotated[
        float,
        typer.Option(min=0.0, help="To the least loss possible, as a share, at which to stop."),
    ] = 1e-3,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.json", help="Write the assignment."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Solve for the assignment of least predicted loss within the limits; nothing is measured."""
    from dse.explore import Overrides  # noqa: PLC0415
    from dse.explore.problem.design import open_design  # noqa: PLC0415
    from dse.explore.run import open_space  # noqa: PLC0415
    from dse.explore.solution import solve, surrogate_of  # noqa: PLC0415
    from dse.graph.assignment_json import to_json  # noqa: PLC0415
    from dse.run.write import write_json  # noqa: PLC0415

    screen: Screen = context.obj
    overrides = Overrides(targets=tuple(target or ()), constraints=tuple(constraint or ()))
    space, origin, folder = open_space(str(source), overrides)
    design = open_design(space, origin=origin, folder=folder)
    solution = solve(design, surrogate_of(scores, design), gap=gap)
    if out is not None:
        assignment = design.problem.assignment(solution.point)
        write_json(out, to_json(assignment, design.model.graph))
    facts = _facts(design, solution)
    if json:
        screen.json(facts)
        return
    screen.facts(facts)
    screen.remark("predicted from scores, nothing is measured; compare budgets, not models, by it")


def _facts(design: Design, solution: Solution) -> dict[str, Value]:
    chosen = Counter(
        name
        for variable, name in zip(
            design.problem.variables, design.problem.choices(solution.point), strict=True
        )
        if len(variable.choices) > 1
    )
    return {
        "predicted_loss": solution.loss,
        "gap": solution.gap,
        "solver_s": solution.seconds,
        "choices": ", ".join(f"{count} {name}" for name, count in chosen.most_common()),
        **solution.costs,
        "digest": solution.digest,
    }


COMMANDS = (solve,)
