"""`--check` of `dse predict` and `dse predict-ops`, and device files that a table adapts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dse.cli.check_networks import check_networks
from dse.cli.comparison import record_of, say_comparison
from dse.cli.screen import Screen, Value

if TYPE_CHECKING:
    import pandas as pd

    from dse.measured.table import Defaults
    from hwmodels.operators.optable import OpTable

YAML = (".yaml", ".yml")
"""Suffixes of device files; the reader of YAML is not loaded for them."""


def check_table(
    screen: Screen,
    path: Path,
    device: str,
    defaults: Defaults,
    *,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print how far predictions are from a table of timed networks, or of operators."""
    from dse.measured.table import is_optable  # noqa: PLC0415

    if out is not None and not is_device_file(out):
        raise typer.BadParameter(f"-o {out}: expected a device file, NEW.yaml")
    if is_optable(path):
        check_ops(screen, path, device, runtime=defaults.runtime, out=out, as_json=as_json)
        if not as_json:
            screen.remark(f"a table of operators: {defaults.model} is not looked at")
        return
    check_networks(screen, path, device, defaults, out=out, as_json=as_json)


def check_ops(
    screen: Screen,
    ops: Path,
    device: str,
    *,
    runtime: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print how far predictions are from the times of a table; write what `out` names."""
    from hwmodels.adapt.deviation import compare_ops, known_rows  # noqa: PLC0415
    from hwmodels.adapt.limits import refuse_impossible_times  # noqa: PLC0415
    from hwmodels.adapt.prediction import predict_ops as predicted  # noqa: PLC0415
    from hwmodels.operators.optable import read_optable, timed_rows  # noqa: PLC0415
    from hwmodels.runtimes.platform import load_platform  # noqa: PLC0415

    adapts = out is not None and is_device_file(out)
    platform = load_platform(device, runtime=runtime)
    table = read_optable(ops, timed=True)
    refuse_impossible_times(table, platform.device, platform.runtime_origin)
    made = fitted(table, device, platform.runtime_origin, out) if out and adapts else {}
    if out and not adapts:
        write_table(predicted(table, platform.device, platform.runtime_origin), out)
        made = {"predictions": str(out)}
    comparison = compare_ops(table, platform.device, platform.runtime_origin)
    without = len(table.shapes) - len(timed_rows(table))
    known = known_rows(table, platform.device, platform.runtime_origin)
    if as_json:
        where = {"device": platform.device.name, "rows_without_time": without, "rows_known": known}
        screen.json(where | record_of(comparison) | made)
        return
    say_comparison(screen, comparison)
    if without:
        screen.remark(f"rows without a time, left out: {without}")
    if known:
        screen.remark(
            f"{known} of the rows are in the device's file, which is adapted to them: their "
            "errors say nothing of others"
        )
    if made:
        screen.result("")
        screen.answer(made, as_json=False)


def fitted(
    table: OpTable,
    device: str,
    driver: str,
    out: Path,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> dict[str, Value]:
    """Write a device file that is adapted to a table, and tell what that gains."""
    from dse.files import write_atomically  # noqa: PLC0415
    from hwmodels.adapt.few_shot import (  # noqa: PLC0415
        fittable_device,
        fitted_device_file,
        samples_of,
    )
    from hwmodels.adapt.gains import fit_errors  # noqa: PLC0415
    from hwmodels.operators.measured import measurements_of  # noqa: PLC0415
    from hwmodels.operators.optable import timed_rows  # noqa: PLC0415
    from hwmodels.runtimes.platform import split_platform  # noqa: PLC0415

    device_file, _ = split_platform(device)
    before = fittable_device(device_file)
    rows = samples_of(table, before, runtime=driver, samples=samples, seed=seed)
    taken = measurements_of(table, rows, driver)
    write_atomically(out, fitted_device_file(device_file, taken))
    errors = fit_errors(table, rows, taken, before, runtime=driver)
    return {
        "device_file": str(out),
        "corrections_dropped": len(before.corrections) or None,
        "samples": len(rows),
        "rows_without_time": len(table.shapes) - len(timed_rows(table)),
        "median_error_before": errors.before,
        "median_error_left_out": errors.left_out,
        "left_out_inside_interval": errors.left_out_inside,
        "rows_not_used": errors.unused,
        "not_used_median_error_before": errors.unused_before,
        "not_used_median_error_after": errors.unused_after,
    }


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table; gzip'd where the name says so."""
    import gzip  # noqa: PLC0415

    from dse.files import write_atomically  # noqa: PLC0415

    text = frame.to_csv(index=False).encode()
    write_atomically(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def is_device_file(path: Path) -> bool:
    """Whether an output is to be a device file, by its suffix.

    Raises:
        BadParameter: neither a device file nor a table.
    """
    if path.suffix in YAML:
        return True
    if path.suffixes[-1:] == [".csv"] or path.suffixes[-2:] == [".csv", ".gz"]:
        return False
    raise typer.BadParameter(
        f"-o {path}: expected NEW.yaml for the adapted device, or PRED.csv for the predictions"
    )
