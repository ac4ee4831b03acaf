"""`--check` of `dse predict` and `dse predict-ops`: predictions beside what a user measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dse.cli.screen import Rows, Screen, Value
from dse.report.quantities.unit import percent

if TYPE_CHECKING:
    import pandas as pd

    from dse.measured.networks import CheckedNetworks
    from dse.measured.table import Defaults
    from hwmodels.adapt.deviation import Comparison, Errors, Group
    from hwmodels.adapt.network_fit import GroupShift
    from hwmodels.operators.optable import OpTable

SHOWN = ("rows", "of the time", "MAPE", "median error", "bias", "within 10 %", "in interval",
         "of the error")  # fmt: skip
MOST_GROUPS = 12
"""Groups of one label that are shown; JSON has all."""
YAML = (".yaml", ".yml")
"""Suffixes of device files; the reader of YAML is not loaded for them."""
NOTHING = 0.005
"""Corrections below this are none."""
FEW_NETWORKS = 5
"""Timed calls below which it is said that they tell little."""
WORDS = {"launch": "bound by launches", "compute": "bound by computing",
         "memory": "bound by memory", "conversion": "converting",
         "communication": "communicating"}  # fmt: skip


def table_of(comparison: Comparison) -> Rows:
    """Errors of all rows, then by each kind of label."""
    lines: list[tuple[Value, ...]] = [("all", *_cells(comparison.errors()))]
    for kind in comparison.labels:
        groups = list(comparison.by(kind).items())
        if kind == "model" and len(groups) == 1:
            continue
        lines += [(f"{kind} {name}", *_cells(one)) for (name,), one in groups[:MOST_GROUPS]]
        if len(groups) > MOST_GROUPS:
            left = f"{kind}: {len(groups) - MOST_GROUPS} more"
            lines.append((left, *("",) * len(SHOWN)))
    return Rows(columns=("group", *SHOWN), rows=tuple(lines))


def record_of(comparison: Comparison) -> dict[str, object]:
    """The same for programs, and every combination of labels."""
    kinds = tuple(comparison.labels)
    every = comparison.by(*kinds)
    return {
        "errors": asdict(comparison.errors()),
        **{
            f"by_{kind}": [{kind: name} | asdict(one) for (name,), one in _of(comparison, kind)]
            for kind in kinds
        },
        "groups": [
            dict(zip(kinds, group, strict=True)) | asdict(one) for group, one in every.items()
        ],
        "biggest_source": sentence_of(comparison),
    }


def sentence_of(comparison: Comparison) -> str:
    """The group with the most absolute error in time, in words."""
    kinds = tuple(comparison.labels)
    group, errors = next(iter(comparison.by(*kinds).items()))
    if not errors.share_of_error:
        return "No error: every prediction is what was measured."
    side = "short" if errors.total < 0 else "long"
    rows = "row" if errors.rows == 1 else "rows"
    return (
        f"The biggest source of error is {_words(kinds, group)}: "
        f"{percent(errors.share_of_error)} of the absolute error in time, in {errors.rows} {rows} "
        f"with {percent(errors.share_of_time)} of the measured time; "
        f"predictions are {100 * abs(errors.total):.0f} % too {side} there."
    )


def say_comparison(screen: Screen, comparison: Comparison) -> None:
    """Print errors by group and the biggest source."""
    screen.table(table_of(comparison))
    screen.result("")
    screen.result(sentence_of(comparison))


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


def check_networks(
    screen: Screen,
    path: Path,
    device: str,
    defaults: Defaults,
    *,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print how far predictions are from the times of networks; write the adapted device."""
    from dse.files import write_atomically  # noqa: PLC0415
    from dse.measured.networks import check_networks as checked  # noqa: PLC0415
    from hwmodels.adapt.network_fit import (  # noqa: PLC0415
        corrected_device_file,
        fit_networks,
        left_out,
    )
    from hwmodels.runtimes.platform import split_platform  # noqa: PLC0415

    found = checked(path, device, defaults)
    fit = fit_networks(found.networks)
    shifts = fit.shifts(found.networks)
    apart = left_out(found.networks, found.comparison)
    made: dict[str, Value] = {}
    if out is not None:
        file, _ = split_platform(device)
        write_atomically(out, corrected_device_file(file, fit.corrections()))
        before, after = found.comparison.errors(), apart.errors() if apart else None
        models = found.comparison.labels["model"]
        others = left_out(found.networks, found.comparison, models)
        made = {
            "device_file": str(out),
            "corrections": len(fit.corrections()),
            "mean_error_before": before.mape,
            "mean_error_left_out": after.mape if after else None,
            "mean_error_models_left_out": others.errors().mape if others else None,
            "in_interval_before": before.in_interval,
            "left_out_inside_interval": after.in_interval if after else None,
        }
    if as_json:
        screen.json(_networks_record(found, shifts, apart) | made)
        return
    say_comparison(screen, found.comparison)
    screen.result("")
    screen.table(_shifts_table(shifts))
    screen.result("")
    screen.result(_shift_sentence(shifts))
    for remark in _network_remarks(found):
        screen.remark(remark)
    if made:
        screen.result("")
        screen.answer(made, as_json=False)
        _say_reach(screen, made)


def _say_reach(screen: Screen, made: Mapping[str, Value]) -> None:
    """Say where corrections do not carry over to networks that were not timed."""
    before, others = made["mean_error_before"], made["mean_error_models_left_out"]
    if isinstance(before, float) and isinstance(others, float) and others >= before:
        screen.remark(
            f"the corrections do not carry over from one model of the table to another "
            f"({before:.1%} before, {others:.1%} with those of the others): take this device for "
            "the models that were timed, and time those that matter"
        )


def _networks_record(
    found: CheckedNetworks, shifts: Sequence[GroupShift], apart: Comparison | None
) -> dict[str, object]:
    return {
        "device": found.platform.device.name,
        "rows_without_time": found.table.without_time,
        "columns_not_read": list(found.table.unread),
        **record_of(found.comparison),
        "left_out": asdict(apart.errors()) if apart else None,
        "kernels": [
            {"runtime": one.runtime, **asdict(one.group)}
            | {key: getattr(one, key) for key in ("share_of_time", "factor", "doubt", "moved")}
            for one in shifts
        ],
        "biggest_kernels": _shift_sentence(shifts),
        "remarks": list(found.remarks),
    }


def _shifts_table(shifts: Sequence[GroupShift]) -> Rows:
    """Groups of kernels by what the networks' times say of them."""
    runtimes = {one.runtime for one in shifts}
    rows = [
        (
            " ".join((one.group.kind, one.group.formats, *((one.runtime,) * (len(runtimes) > 1)))),
            one.group.bound,
            percent(one.share_of_time),
            f"{100 * (one.factor - 1):+.0f} %",
            f"± {100 * one.doubt:.0f} %",
            percent(one.moved),
        )
        for one in shifts[:MOST_GROUPS]
    ]
    columns = ("kernels", "regime", "of the time", "correction", "doubt", "of all corrected")
    return Rows(columns=columns, rows=tuple(rows))


def _shift_sentence(shifts: Sequence[GroupShift]) -> str:
    """The group of kernels that the networks' times correct most, in words."""
    one = shifts[0]
    if abs(one.factor - 1) < NOTHING:
        return "The networks' times ask for no correction of any kernels."
    side = "short" if one.factor > 1 else "long"
    named = f"{one.group.kind} kernels{f' in {one.group.formats}' * bool(one.group.formats)}"
    unsure = "" if abs(one.factor - 1) > one.doubt else ", within what these times leave in doubt"
    return (
        f"As far as whole networks tell kernels apart, most is wrong with {named}, "
        f"{WORDS.get(one.group.bound, one.group.bound)}: predicted "
        f"{100 * abs(1 / one.factor - 1):.0f} % too {side} (± {100 * one.doubt:.0f} %{unsure})."
    )


def _network_remarks(found: CheckedNetworks) -> list[str]:
    """Remarks that a reader of a check needs."""
    table, device = found.table, found.platform.device
    remarks = list(found.remarks)
    if table.without_time:
        remarks.append(f"rows without a time, left out: {table.without_time}")
    if table.unread:
        remarks.append(f"columns that were not read: {', '.join(table.unread)}")
    if len(table.rows) < FEW_NETWORKS:
        remarks.append(
            f"{len(table.rows)} timed calls hardly tell kernels apart; operators do: "
            "dse profile, then dse predict-ops --check"
        )
    if device.corrections:
        remarks.append(
            f"{device.name}'s file has corrections from networks already: errors of the same "
            "networks say nothing of others"
        )
    return remarks


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
        measurements_of,
        samples_of,
    )
    from hwmodels.adapt.gains import fit_errors  # noqa: PLC0415
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


def _of(comparison: Comparison, kind: str) -> Sequence[tuple[Group, Errors]]:
    return tuple(comparison.by(kind).items())


def _cells(errors: Errors) -> tuple[Value, ...]:
    return (
        errors.rows,
        percent(errors.share_of_time),
        f"{100 * errors.mape:.1f} %",
        f"{100 * errors.median:.1f} %",
        f"{100 * errors.bias:+.1f} %",
        percent(errors.within_10_percent),
        percent(errors.in_interval),
        percent(errors.share_of_error),
    )


def _words(kinds: Sequence[str], group: Group) -> str:
    """`gemm in bf16, bound by memory, under vllm`."""
    named = dict(zip(kinds, group, strict=True))
    first = named.get("operator") or named.get("model") or ""
    text = f"{first} in {named['format']}, {WORDS.get(named['regime'], named['regime'])}"
    return f"{text}, under {named['runtime']}" if "runtime" in named else text
