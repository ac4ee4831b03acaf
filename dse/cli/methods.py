"""`dse search`, `dse check` and `dse report` of spaces of training methods."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dse.cli.screen import Rows, Screen, Value, kept_run, resumable

if TYPE_CHECKING:
    from dse.training.method import Functions, Tuning
    from dse.training.search.pool import Places
    from dse.training.search.run import MethodOverrides


def search_methods(
    screen: Screen,
    source: str | None,
    *,
    overrides: MethodOverrides,
    out: Path | None,
    resume: bool,
    places: Places,
    as_json: bool,
) -> None:
    """Search a space of training methods, and report the front."""
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.explore.run import default_folder  # noqa: PLC0415
    from dse.training.search.run import run_training_search  # noqa: PLC0415

    folder = out if resume or source is None else out or default_folder(source)
    quiet = screen.quiet or as_json
    with resumable(lambda: kept_run(folder)), shown_progress(quiet=quiet) as progress:
        found = run_training_search(
            source, overrides=overrides, out=folder, resume=resume, places=places,
            progress=progress,
        )  # fmt: skip
    report_methods(screen, found, as_json=as_json)


def report_methods(screen: Screen, folder: Path, *, as_json: bool) -> None:
    """Write the page of a search over methods, and print its front."""
    from dse.report.training.console import print_training_front  # noqa: PLC0415
    from dse.report.training.html import write_training_report  # noqa: PLC0415
    from dse.report.training.records import training_front  # noqa: PLC0415

    page = write_training_report(folder)
    if as_json:
        screen.json(training_front(folder))
    elif screen.quiet:
        screen.result(str(page))
    else:
        print_training_front(folder, screen.console())


def check_methods(screen: Screen, path: Path, *, as_json: bool) -> None:
    """Print the size of a space of methods, and the price of the named ones."""
    from dse.training.load import REFERENCE, load_method  # noqa: PLC0415
    from dse.training.search.cost import open_prices  # noqa: PLC0415
    from dse.training.search.load import load_training_space, problem_of_space  # noqa: PLC0415
    from dse.training.workloads.catalogue import workload  # noqa: PLC0415

    space = load_training_space(path)
    problem = problem_of_space(space, origin=str(path), folder=path.parent)
    prices = open_prices(
        space.cost, space.target.device, space.target.runtime, origin=str(path),
        folder=path.parent,
    )  # fmt: skip
    whole = prices.of(load_method(REFERENCE))
    methods = {REFERENCE: load_method(REFERENCE)}
    methods |= {name: point.method for name, point in problem.named.items()}
    rows = [
        (name, found.step_s, f"{whole.step_s / found.step_s:.2f} x", found.memory_bytes,
         str(found.status))
        for name, found in ((name, prices.of(method)) for name, method in methods.items())
    ]  # fmt: skip
    table = Rows(columns=("method", "step_s", "speed-up", "memory_bytes", "status"),
                 rows=tuple(rows))  # fmt: skip
    effort = space.search
    facts: dict[str, Value] = {
        "workload": f"{space.workload.name}, "
        f"{space.workload.steps or workload(space.workload.name).steps} steps",
        "cost_model": space.cost.model,
        "target": f"{prices.platform.device.name} under {prices.platform.runtime.name}",
        "variables": f"{len(problem.options)} ({', '.join(problem.options)})",
        "methods": f"{math.prod(len(one) for one in problem.options.values()):.3g}",
        "start": space.start,
        "trials": effort.trials,
        "seeds": f"{effort.seeds} to search, {effort.report_seeds} others to report",
    }
    if as_json:
        screen.json({**facts, "named": table.records()})
        return
    screen.facts(facts)
    screen.result("")
    screen.table(table)


def check_method(screen: Screen, path: Path, *, as_json: bool) -> None:
    """Print what a method file says, in short."""
    from dse.training.ledger import sent_bytes, state_bytes  # noqa: PLC0415
    from dse.training.load import load_method  # noqa: PLC0415

    found = load_method(path)
    facts: dict[str, Value] = {
        "source": found.source,
        "roles": ", ".join(found.roles) or None,
        "rules": len(found.rules) or None,
        "update": f"{found.update.optimizer}, {found.update.mode}",
        "loss_scale": found.loss_scale.kind,
        "schedule": found.schedule.kind if found.schedule else None,
        "tuning": _adapters(found.tuning),
        "functions": _numbers(found.functions),
        "bytes_per_parameter": round(state_bytes(found), 4),
        "bytes_sent_per_parameter_and_round": round(sent_bytes(found), 4) or None,
    }
    screen.answer(facts, as_json=as_json)
    if not as_json:
        screen.remark(f"train it beside bf16: dse train {path}")


def _numbers(functions: Functions | None) -> str | None:
    """The functions of a method, in a line."""
    if functions is None:
        return None
    rewritten = ", ".join(functions.rewrites)
    return functions.format + (f"; otherwise written: {rewritten}" if rewritten else "")


def _adapters(tuning: Tuning | None) -> str | None:
    """The tuning of a method, in a line."""
    if tuning is None:
        return None
    ranks = str(tuning.rank) if tuning.grown is None else f"{tuning.rank} to {tuning.grown}"
    cut = "" if tuning.density == 1 else f", {tuning.density:.0%} of pruned layers' weights left"
    return f"adapters of rank {ranks}, weights frozen from {tuning.begins:.0%} of the run on{cut}"
