"""`dse devices --new`: the file of a device that is not in the list, from its datasheet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dse.cli.device.vary import pairs
from dse.cli.screen import Screen, Value

if TYPE_CHECKING:
    from hwmodels.devices.draft import Draft

WORDS = (
    ("title", "What people call it", ""),
    ("vendor", "Vendor", "nvidia, amd, intel, ..."),
    ("family", "Chips that share its design", "hopper, blackwell, cdna3, ..."),
    ("year", "Year", "2026"),
)
FIGURES = (
    ("cores", "Cores: SMs of NVIDIA, compute units of AMD, matrix units of a TPU",
     "as many tiles are computed at once; the cores that are enabled, not those of the die"),
    ("clock", "Clock under load",
     "every latency counts in cycles; a sheet's boost clock is the most that it can be"),
    ("bf16", "Rate of the matrix unit in bf16", "DENSE: sheets like to print twice as much"),
    ("fp8", "Rate of the matrix unit in fp8", "dense, with 32-bit accumulation"),
    ("fp4", "Rate of the matrix unit in fp4", "dense"),
    ("int8", "Rate of the matrix unit in int8", "dense"),
    ("int4", "Rate of the matrix unit in int4", "dense"),
    ("tf32", "Rate of the matrix unit in tf32", "dense"),
    ("vector.fp32", "Rate in fp32 outside of the matrix unit", "norms, softmax, fp32 products"),
    ("memory.capacity", "Capacity of main memory", "what fits, and how many requests"),
    ("memory.bandwidth", "Bandwidth of main memory", "rules whatever reads its weights once"),
    ("l2.capacity", "Capacity of the last-level cache", "what stays there costs no main memory"),
    ("l2.bandwidth", "Bandwidth of that cache", "seldom on a sheet; micro-benchmarks tell it"),
    ("limit", "Power limit", "energy, and how far the clock holds"),
    ("idle", "Power when idle, with a context", "nvidia-smi tells it"),
    ("link.bandwidth", "Bandwidth of the links to other devices, both directions together",
     "tensor parallelism"),
    ("launch", "Time from a kernel's start to the next one's in a captured graph",
     "rules small batches; dse profile measures it"),
    ("price", "Price of one device an hour", "cost of a million tokens; optional"),
)  # fmt: skip
"""Key, question, and why it matters."""
EXAMPLES = {"price": "2.5 USD/h", "link.bandwidth": "64 GB/s"}
"""Answers to questions that the similar device has no figure for."""


def new_device(
    screen: Screen,
    name: str | None,
    *,
    like: str | None,
    settings: Sequence[str],
    source: str,
    out: Path | None,
    ask: bool,
    as_json: bool,
) -> None:
    """Write the file of a new device from settings, and from questions where `ask`."""
    from dse.files import write_atomically  # noqa: PLC0415
    from hwmodels.devices.draft import Draft  # noqa: PLC0415

    given = pairs(settings)
    if name is not None:
        given.setdefault("name", name)
    if ask and "name" not in given:
        given["name"] = _ask("Name of the file, in small letters (my-chip)")
    draft = Draft(like or _similar(given, ask=ask))
    for key, text in given.items():
        draft.set(key, text, source=source)
    if ask:
        screen.result(HELP.format(like=draft.like.title))
        _dialogue(screen, draft, given, source=source)
    path = out or Path(f"{draft.words.get('name', 'device')}.yaml")
    if out is None and path.exists():
        raise typer.BadParameter(f"{path} exists; say where to write with -o FILE.yaml")
    write_atomically(path, draft.text(str(path)))
    _say(screen, draft, path, as_json=as_json)


HELP = """
Answer with a number and its unit, then @ and where it is from: 864 GB/s @ datasheet, page 2
Enter takes what is assumed, by the rule in brackets, from {like}; none: it has no such thing.
"""


def _similar(given: dict[str, str], *, ask: bool) -> str:
    """The device that is most like what is known of the new one.

    Raises:
        BadParameter: nothing is known, and nobody may be asked.
    """
    from hwmodels.devices.draft import architecture_of, nearest_device  # noqa: PLC0415

    if ask and "kind" not in given:
        given["kind"] = _ask("Kind of device: gpu, cpu, array (of multipliers) or npu", "gpu")
    if ask and "architecture" not in given:
        given["architecture"] = _ask(
            "Architecture and version: sm 9.0 (NVIDIA), cdna 3 (AMD), tpu 5, ..."
        )
    if "architecture" not in given:
        raise typer.BadParameter(
            "which known device is it like? Give --like DEVICE (see: dse devices), or "
            "--set architecture='sm 8.9', or --ask"
        )
    family, version = architecture_of(given["architecture"])
    found = nearest_device(kind=given.get("kind"), family=family, version=version)
    return _ask("Known device that it is most like", found) if ask else found


def _dialogue(screen: Screen, draft: Draft, given: dict[str, str], *, source: str) -> None:
    """Asks for whatever was not set."""
    for key, words, example in WORDS:
        if key not in given:
            default = given["name"] if key == "title" else str(draft.known[key])
            note = f" ({example})" if example else ""
            draft.set(key, _ask(f"{words}{note}", default))
    source = source or _ask("Where the figures are from: title and page, or address", "")
    for key, words, why in FIGURES:
        while key not in given:
            figure = draft.figure(key)
            screen.result(f"\n{words}: {why}.")
            text = _ask(_shown(key, figure, draft), "")
            if not text:
                break
            try:
                unit = str(figure["unit"]) if figure else None
                draft.set(key, text, unit=unit, source=source)
            except ValueError as problem:
                screen.result(str(problem))
                continue
            break


def _shown(key: str, figure: dict[str, object] | None, draft: Draft) -> str:
    if figure is None:
        example = EXAMPLES.get(key, "400 TFLOP/s")
        return f"{key}, such as {example} [none]"
    return f"{key} [{figure['value']:g} {figure['unit']}: {figure['source']}]"


def _ask(text: str, default: str | None = None) -> str:
    """One answer.

    Raises:
        BadParameter: the input ended.
    """
    try:
        answer = typer.prompt(text, default=default, show_default=bool(default))
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        raise typer.BadParameter(
            f"the input ended before: {text}; use --set KEY=VALUE and --like DEVICE where "
            "nobody can answer"
        ) from None
    return str(answer).strip()


def _say(screen: Screen, draft: Draft, path: Path, *, as_json: bool) -> None:
    """Print where the file is, and how much of it is known."""
    from hwmodels.devices.load import load_device  # noqa: PLC0415

    device = load_device(path)
    assumed = sum(figure.kind == "assumed" for figure in device.figures)
    facts: dict[str, Value] = {
        "device_file": str(path),
        "like": draft.like.name,
        "figures": len(device.figures),
        "assumed": assumed,
    }
    screen.answer(facts, as_json=as_json)
    if as_json:
        return
    if draft.open_words:
        screen.remark(f"taken over from {draft.like.name}: {', '.join(draft.open_words)}")
    screen.remark(
        f"each figure with its source: dse devices {path}; which of the assumed ones matter: "
        f"dse predict MODEL --device {path} --sensitivity; where the device is at hand: "
        "dse profile, dse fit"
    )
