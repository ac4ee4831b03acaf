"""The `dse` program: its commands, its global options, and the boundary that turns errors to text.

Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from dse import __version__
from dse.cli import (
    annotate,
    catalogue,
    cost,
    export,
    formats,
    imports,
    measure,
    outside,
    quality,
    report,
    search,
    solve,
    space,
)
from dse.cli.screen import Screen, Terminated, stopped_code
from dse.cli.systems import studies
from dse.cli.training import train, tune
from dse.errors import DseError, StorageError, WriteError, nearest
from hwmodels.errors import HardwareError

FAILED, WRONG_INPUT = 1, 2

WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError,
              PermissionError)  # fmt: skip
"""Errors of an operating system about a path that a user gave and nobody checked before."""

GLOBAL_FLAGS = ("--quiet", "--debug")
"""May stand anywhere on the line."""

COLLECTED_AFTER = (50_000, 20, 20)
"""Objects, and generations of them, between the collector's rounds. What imports make lives to the
end: rounds at the interpreter's 700 find nothing in it, for a tenth of a short command."""

# Typer re-exports BadParameter but not what it inherits from: the error of every unusable line.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="dse",
    help="Which number format can each part of a model take, and what does it buy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    search, solve, outside, imports, space, annotate, cost, measure, quality, report, train,
    tune, studies, export, formats, catalogue,
):  # fmt: skip
    for command in module.COMMANDS:
        app.command(name=command.__name__.removesuffix("_").replace("_", "-"))(command)
app.add_typer(studies.STUDY)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dse {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print results only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    context.obj = Screen(quiet=quiet)
    _tell(quiet=quiet)


def _tell(*, quiet: bool) -> None:
    """Shows what the package has to say beside results, on stderr: warnings, and what was read."""
    for logger in map(logging.getLogger, ("dse", "hwmodels")):
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)
        for shown in logger.handlers:
            if type(shown) is logging.StreamHandler:
                shown.stream = sys.stderr  # whoever calls this may have put another there since
            shown.setLevel(logging.ERROR if quiet else logging.INFO)
    logging.getLogger("dse.evaluate").setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    gc.set_threshold(*COLLECTED_AFTER)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    flags_first = sorted(given, key=lambda argument: argument not in GLOBAL_FLAGS)
    sys.exit(run(flags_first))


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def run(arguments: Sequence[str]) -> int:
    """Run the command line; every error becomes one message on stderr and an exit code."""
    try:
        return int(app(list(arguments), standalone_mode=False, prog_name="dse") or 0)
    except (KeyboardInterrupt, typer.Abort) as error:
        _complain("interrupted")
        return stopped_code(error)
    except BrokenPipeError:
        # Whoever read the output has seen enough. The stream must not be flushed again at exit.
        sys.stdout = None
        return FAILED
    except UsageError as error:
        _complain(_usage(error))
        return WRONG_INPUT
    except Exception as error:
        if "--debug" in arguments:
            raise
        message, code = described(error)
        _complain(message)
        return code


def described(error: Exception) -> tuple[str, int]:
    """Message and exit code of an error."""
    if isinstance(error, StorageError | WriteError):
        return str(error), WRONG_INPUT if isinstance(_first(error), WRONG_PATH) else FAILED
    if isinstance(error, DseError | HardwareError):
        return str(error), WRONG_INPUT
    if isinstance(error, WRONG_PATH):
        return f"{error.filename}: {error.strerror}", WRONG_INPUT
    return f"{type(error).__name__}: {error}\nthe work failed; run it again with --debug", FAILED


def _first(error: BaseException) -> BaseException:
    """The error that led to an error: of a path that is wrong, or of a disk that is full."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _usage(error: Exception) -> str:
    """The fault of a command line, the nearest command, and where to read on."""
    message = error.format_message()  # type: ignore[attr-defined]
    if not message:
        return "no command given; see: dse --help"
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "dse"
    if message.startswith("No such command"):
        message = message.partition(" Did you mean")[0]
        names = list(getattr(getattr(context, "command", None), "commands", ()))
        message = f"{message.rstrip('.')}{nearest(message.split(chr(39))[1], names)}"
    return f"{message}\nsee: {path} --help"


def _complain(message: str) -> None:
    typer.echo(f"dse: {message}", err=True)
