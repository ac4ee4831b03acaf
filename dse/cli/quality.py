"""`dse evaluate`, `dse sensitivity`: what formats do to quality, emulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.cost import AssignmentFile, Model
from dse.cli.platform import Compute
from dse.cli.screen import JsonFlag, Rows, Screen, Value, is_given
from dse.cli.search import Memory
from dse.files import write_atomically

if TYPE_CHECKING:
    from dse.evaluate.model import Evaluation
    from dse.evaluate.ratios import Ratios
    from dse.evaluate.tasks.schema import TaskEntry
    from dse.evaluate.tasks.score import TaskResult
    from dse.graph.ir.assignment import Assignment
    from dse.model import Model as Opened
    from dse.space.schema import QualityOf


ASSIGNMENTS = (".json", ".onnx")
"""Files that hold an assignment."""


class Method(StrEnum):
    """The way in which choices are scored."""

    direct = "direct"
    gradient = "gradient"


DataSource = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A zoo name, .npz, token file, text, image folder or module:function.  "
        "[default: that of the zoo model]",
    ),
]

OutputName = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="The only output that counts.  [default: all]"),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="What outputs are: logits, log_probabilities, probabilities, binary (one logit a "
        "decision) or regression.  [default: read off graph, labels and names]",
    ),
]


def evaluate(
    context: typer.Context,
    model: Model,
    *,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scheme or format, see: dse formats.")
    ] = None,
    assignment: AssignmentFile = None,
    data: DataSource = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Perplexity, multiple choice, generation, retrieval: docs/tasks.md.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Sequences or images to measure.")] = 16,
    accumulator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Sums of products in int20, int16:saturate, fp16, e6m9:zero:chunk16, …, instead "
            "of float32.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|A.json",
            help="Compare with this network instead of full precision, and print the likelihood "
            "ratios between the two.",
        ),
    ] = None,
    output: OutputName = None,
    kind: Kind = None,
    compute: Annotated[Compute, typer.Option(help="Where the network runs.")] = Compute.cpu,
    memory: Memory = None,
    json: JsonFlag = False,
) -> None:
    """Emulate a format or an assignment, measure quality."""
    if (format is None) == (assignment is None):
        raise typer.BadParameter("give either --format or --assignment")
    if reference is not None and tasks is not None:
        raise typer.BadParameter("--reference compares outputs, --tasks scores answers: give one")
    from dse.data import check_source, source_ranks  # noqa: PLC0415
    from dse.evaluate.model import evaluate_model  # noqa: PLC0415
    from dse.evaluate.tasks.run import evaluate_tasks  # noqa: PLC0415
    from dse.evaluate.tasks.schema import load_tasks  # noqa: PLC0415
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.schema import Data  # noqa: PLC0415
    from hwmodels.formats import accumulator as accumulators  # noqa: PLC0415

    screen: Screen = context.obj
    adding = None if accumulator is None else accumulators.accumulator(accumulator)
    entries = load_tasks(tasks) if tasks is not None else ()
    source = data_of(model, data or _text_of(entries))
    check_source(source)
    opened = open_model(model, ranks=source_ranks(source))
    chosen = _assignment(opened, str(assignment or format), is_file=assignment is not None)
    other = None
    if reference is not None:
        named = Path(reference).suffix in ASSIGNMENTS
        other = _assignment(opened, reference, is_file=named)
    if entries:
        rows = evaluate_tasks(
            opened.analysis, chosen, entries, Data(source=source), compute=compute.value,
            memory_bytes=memory, accumulator=adding,
        )  # fmt: skip
        _print_tasks(screen, rows, as_json=json)
        return
    found = evaluate_model(
        opened.analysis,
        chosen,
        Data(source=source, report=samples),
        compute=compute.value,
        memory_bytes=memory,
        quality=quality_of(output, kind),
        accumulator=adding,
        reference=other,
    )
    _print(screen, format or str(assignment), found, as_json=json)
    if found.verdict:
        typer.echo(found.verdict, err=True)
    for reason, count in found.other_sums.items():
        typer.echo(
            f"{count} of {count + found.sums} products keep float32 sums: {reason}", err=True
        )
    if opened.weights_note and not json:
        screen.remark(f"{opened.name}: {opened.weights_note}")


def sensitivity(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="MODEL|SPACE.yaml", help="A model, or a space.")
    ],
    data: DataSource = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples a choice.  [default: the space's]")
    ] = None,
    *,
    output: OutputName = None,
    kind: Kind = None,
    method: Annotated[
        Method, typer.Option(help="Measure every choice, or score all by one backward pass.")
    ] = Method.direct,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", "--csv", metavar="FILE.csv", help="Save the table too."),
    ] = None,
    lines: Annotated[
        str | None,
        typer.Option(
            metavar="TOOL",
            help="In place of the table the layers that mind most, as llama.cpp, llm-compressor "
            "or aimet read them.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Variables that --lines takes.")] = 8,
    compute: Annotated[Compute, typer.Option(help="Where the network runs.")] = Compute.cpu,
    memory: Memory = None,
    json: JsonFlag = False,
) -> None:
    """Rank what each choice alone costs in quality."""
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.data import Sizes  # noqa: PLC0415
    from dse.explore import Overrides  # noqa: PLC0415
    from dse.explore.measure.session import prepare  # noqa: PLC0415
    from dse.explore.problem.progress import Status  # noqa: PLC0415
    from dse.explore.run import open_space  # noqa: PLC0415
    from dse.export.lines import check_tool, tool_lines  # noqa: PLC0415
    from dse.sensitivity.score import score  # noqa: PLC0415
    from dse.sensitivity.table import warn_of_flat  # noqa: PLC0415

    screen: Screen = context.obj
    if lines is None and is_given(context, "top"):
        raise typer.BadParameter("--top: the variables that --lines takes; add --lines TOOL")
    if lines is not None:
        check_tool(lines)
    is_space = Path(source).suffix in (".yaml", ".yml")
    overrides = Overrides(data=data if is_space else data_of(source, data))
    space, origin, folder = open_space(source, overrides)
    if output or kind:
        space = space.model_copy(update={"quality": quality_of(output, kind)})
    count = samples or space.search.sensitivity_samples
    session = prepare(
        space,
        origin=origin,
        folder=folder,
        compute=compute.value,
        memory_bytes=memory,
        needed=Sizes(calibration=space.data.calibration, search=count, report=0),
    )
    with shown_progress(quiet=screen.quiet or json) as progress:
        table = score(
            session.evaluator,
            session.design.problem,
            method.value,
            samples=count,
            seed=space.search.seed,
            progress=lambda done, total: progress(
                Status(stage="sensitivity", done=done, total=total)
            ),
        )
    warn_of_flat(table)
    columns = ("variable", "choice", "loss", "stderr", "samples")
    rows = tuple(tuple(getattr(one, name) for name in columns) for one in table.ranked())
    if out is not None:
        write_atomically(out, table.to_csv(session.design.problem))
    if lines is not None:
        graph = session.design.model.graph
        screen.result(tool_lines(lines, table, session.design.problem, graph, top=top))
        return
    screen.table(Rows(columns=columns, rows=rows), as_json=json)


def quality_of(output: str | None, kind: str | None) -> QualityOf:
    """The command line's account of outputs.

    Raises:
        SpaceError: no such kind.
    """
    from dse.errors import SpaceError, nearest  # noqa: PLC0415
    from dse.evaluate.outputs.output import KINDS  # noqa: PLC0415
    from dse.space.schema import QualityOf  # noqa: PLC0415

    if kind is not None and kind not in KINDS:
        raise SpaceError(
            f"--kind {kind}: no such kind of output{nearest(kind, KINDS)}; expected one of "
            f"{', '.join(KINDS)}"
        )
    return QualityOf.model_validate({"output": output, "kind": kind})


COMMANDS = (evaluate, sensitivity)


def _text_of(tasks: Sequence[TaskEntry]) -> str | None:
    """The first text among tasks: what scales are calibrated on where no data are given."""
    return next((entry.data for entry in tasks if entry.kind == "perplexity"), None)


def _print_tasks(screen: Screen, found: Iterable[TaskResult], *, as_json: bool) -> None:
    columns = ("task", "metric", "value", "stderr", "reference", "difference",
               "difference_stderr", "records")  # fmt: skip
    rows = tuple(tuple(getattr(one, name) for name in columns) for one in found)
    screen.table(Rows(columns=columns, rows=rows), as_json=as_json)


def _assignment(opened: Opened, named: str, *, is_file: bool) -> Assignment:
    """The assignment of a file, or that of a scheme or format everywhere."""
    from dse.predict import load_assignment  # noqa: PLC0415
    from dse.space.uniform import uniform_assignment  # noqa: PLC0415

    if is_file:
        return load_assignment(Path(named), opened.graph)
    return uniform_assignment(opened.analysis.regions, named, opened.analysis.ties)


def data_of(model: str, given: str | None) -> str:
    """The data of a model: what was given, or what its zoo entry has.

    Raises:
        DataError: neither.
    """
    from dse.errors import DataError  # noqa: PLC0415

    if given is not None:
        return given
    if model.startswith("zoo:"):
        return model
    raise DataError(
        f"{model}: needs --data: a zoo name, an .npz, a token file, a folder of images by class, "
        "or module:function"
    )


def _ratio_columns(ratios: Ratios) -> dict[str, Value]:
    return {
        "acceptance": ratios.acceptance,
        "acceptance_stderr": ratios.acceptance_stderr,
        "mean_log_ratio": ratios.mean_log,
        "mean_log_ratio_stderr": ratios.mean_log_stderr,
        "log_ratio_p1": ratios.low_log,
        "log_ratio_p99": ratios.high_log,
        "effective_share": ratios.effective,
    }


def _print(screen: Screen, label: str, found: Evaluation, *, as_json: bool) -> None:
    metric = found.task.metric or "metric"
    quality, whole = found.quantized, found.reference
    values: dict[str, Value] = {
        "assignment": label, "loss": quality.loss, "stderr": quality.stderr,
        "p99_loss": quality.p99, "flip_rate": quality.flip_rate, metric: quality.metric,
        f"reference_{metric}": whole.metric, "samples": quality.samples,
    }  # fmt: skip
    if found.ratios is not None:
        values |= _ratio_columns(found.ratios)
    screen.table(Rows(columns=tuple(values), rows=(tuple(values.values()),)), as_json=as_json)
    if not as_json:
        for output in found.task.outputs:
            screen.remark(f"output {output}")
        screen.remark(
            f"a loss of {quality.loss:.4g} {found.task.unit}; that of a constant answer: "
            f"{found.constant.loss:.3g}"
        )
