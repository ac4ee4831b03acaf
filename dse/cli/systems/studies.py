"""`dse studies`, `dse study run`, `dse study show`: published systems and what they claim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.screen import NARROWEST, JsonFlag, Rows, Screen, resumable

if TYPE_CHECKING:
    from dse.systems.run import Result, Spread
    from dse.systems.schema import Claim, System, Uses

FAILED = 1
"""Exit code of a claim that does not hold."""
ALL = "all"
INDENT = " " * 4
PLURAL = {"holds": "hold", "does not hold": "do not hold"}
"""Verdicts of several claims."""
Names = Annotated[
    list[str], typer.Argument(metavar="SNN...", help="Systems (S01 to S28), or all.")
]
STUDY = typer.Typer(
    name="study",
    help="Measure what published systems claim, or show one of them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def studies(context: typer.Context, *, json: JsonFlag = False) -> None:
    """The 28 published systems that are expressed here, and where their claims are measured."""
    from dse.systems.load import systems  # noqa: PLC0415

    screen: Screen = context.obj
    found = systems()
    screen.table(
        Rows(
            columns=("id", "name", "adds", "in seconds", "in minutes", "not here"),
            rows=tuple(
                (one.id, one.name, ", ".join(one.adds), *_counts(one.claims)) for one in found
            ),
        ),
        as_json=json,
    )
    if not json:
        screen.remark("claims by what measuring them takes; measure one: dse study run S09")


COMMANDS = (studies,)


@STUDY.command("run")
def run_study(
    context: typer.Context,
    name: Names,
    *,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Of every claim that draws.  [default: its own]"),
    ] = None,
    minutes: Annotated[
        bool, typer.Option("--minutes", help="Measure claims that take minutes, too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write SNN.json of each system there."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Measure the claims of systems and say of each whether it holds.

    What needs hardware or networks that are not here is listed as not run, never as passed. Exit
    code 1 where a claim does not hold.
    """
    from dse.systems.load import load_system, system_names  # noqa: PLC0415

    screen: Screen = context.obj
    wanted = system_names() if ALL in name else name
    chosen = list({one.id: one for one in map(load_system, wanted)}.values())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    ended: dict[str, list[Result]] = {}
    hint = f"systems that were finished are in {out}" if out else ""
    with resumable(lambda: hint):
        for system, results in _measured(screen, chosen, seeds, minutes=minutes, quiet=json):
            ended[system.id] = results
            if out is not None:
                _write(out / f"{system.id}.json", _record(system, results))
            if not json:
                _say(screen, system, results)
    if json:
        screen.json([_record(one, ended[one.id]) for one in chosen])
    else:
        screen.remark(_summary([one for results in ended.values() for one in results]))
    if any(one.verdict == "does not hold" for results in ended.values() for one in results):
        raise typer.Exit(FAILED)


@STUDY.command("show")
def show_study(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SNN", help="A system (S01 to S28).")],
    *,
    json: JsonFlag = False,
) -> None:
    """Show the parts of the product that express a system, its claims and their origin."""
    from dse.systems.load import load_system  # noqa: PLC0415

    screen: Screen = context.obj
    system = load_system(name)
    if json:
        screen.json(_described(system))
        return
    screen.facts({
        "system": f"{system.id} {system.name}", "title": system.title, "source": system.source,
        "adds": ", ".join(system.adds), **_used(system.uses),
    })  # fmt: skip
    screen.result("")
    for claim in system.claims:
        screen.result(_filled(f"[{claim.needs}; {_evidence(claim)}] {claim.says}", ""))
        if claim.why:
            screen.result(_filled(claim.why, INDENT))
    for text in system.corrections:
        screen.result(_filled(f"But: {text}", ""))


def _measured(
    screen: Screen, chosen: Sequence[System], seeds: int | None, *, minutes: bool, quiet: bool
) -> Iterator[tuple[System, list[Result]]]:
    """Each system with all its results, as soon as it has ended."""
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.explore.problem.progress import Status  # noqa: PLC0415
    from dse.systems.run import measurements, results  # noqa: PLC0415

    total = sum(
        measurements(claim, minutes=minutes, seeds=seeds) for one in chosen for claim in one.claims
    )
    started = 0
    with shown_progress(quiet=screen.quiet or quiet) as progress:
        for system in chosen:
            numbers = {id(claim): place for place, claim in enumerate(system.claims, 1)}

            def tell(claim: Claim, seed: int, count: int, of: System = system) -> None:
                nonlocal started
                note = f"{of.id}, claim {numbers[id(claim)]} of {len(of.claims)}"  # noqa: B023
                if count > 1:
                    note += f", seed {seed + 1} of {count}"
                progress(Status(stage="claims", done=started, total=total, note=note))
                started += 1

            yield system, list(results(system, minutes=minutes, seeds=seeds, tell=tell))
        progress(Status(stage="claims", done=total, total=total))


def _say(screen: Screen, system: System, results: Iterable[Result]) -> None:
    screen.result(f"{system.id} {system.name}")
    for one in results:
        screen.result(_filled(f"{one.verdict}: {one.claim.says} ({_evidence(one.claim)})", "  "))
        if one.why:
            screen.result(_filled(one.why, INDENT))
        for condition in one.judged:
            mark = "" if condition.holds else "no: "
            text = f"{mark}{condition.what}: {condition.found}, expected {condition.wanted}"
            screen.result(_filled(text, INDENT))
        if one.seeds > 1:
            screen.result(f"{INDENT}means of {one.seeds} seeds; alone it holds for "
                          f"{one.seeds_holding}")  # fmt: skip


def _summary(results: Sequence[Result]) -> str:
    counts = Counter(one.verdict for one in results)
    words = [
        f"{count} {verdict if count == 1 else PLURAL.get(verdict, verdict)}"
        for verdict, count in counts.most_common()
    ]
    return f"{len(results)} claims: {', '.join(words)}"


def _evidence(claim: Claim) -> str:
    return f"{claim.evidence}, assumed" if claim.assumed else claim.evidence


def _counts(claims: Sequence[Claim]) -> tuple[int, int, int]:
    needs = [claim.needs for claim in claims]
    quick, long = needs.count("seconds"), needs.count("minutes")
    return quick, long, len(needs) - quick - long


def _used(uses: Uses) -> dict[str, str]:
    return {kind: ", ".join(names) for kind, names in asdict(uses).items() if names}


def _filled(text: str, indent: str) -> str:
    return fill(
        text, NARROWEST, initial_indent=indent, subsequent_indent=indent + INDENT,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _described(system: System) -> dict[str, object]:
    return {
        "id": system.id, "name": system.name, "title": system.title, "source": system.source,
        "adds": list(system.adds),
        "uses": {kind: list(names) for kind, names in asdict(system.uses).items() if names},
        "claims": [_stated(one) for one in system.claims],
        "corrections": list(system.corrections),
    }  # fmt: skip


def _stated(claim: Claim) -> dict[str, object]:
    return {
        "says": claim.says, "evidence": claim.evidence, "assumed": claim.assumed,
        "needs": claim.needs, "measure": claim.measure or None, "note": claim.why,
    }  # fmt: skip


def _record(system: System, results: Sequence[Result]) -> dict[str, object]:
    return {
        "id": system.id,
        "name": system.name,
        "claims": [
            _stated(one.claim)
            | {
                "verdict": one.verdict,
                "why": one.why,
                "conditions": [asdict(condition) for condition in one.judged],
                "seeds": one.seeds,
                "seeds_holding": one.seeds_holding,
                "took_s": round(one.took_s, 3),
                "rows": {name: _spread(spread) for name, spread in one.rows.items()},
            }
            for one in results
        ],
    }


def _spread(one: Spread) -> Mapping[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(one).items()}


def _write(path: Path, record: Mapping[str, object]) -> None:
    from dse.files import write_atomically  # noqa: PLC0415

    write_atomically(path, dumps(record, indent=1, ensure_ascii=False, allow_nan=False))
