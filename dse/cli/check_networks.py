"""`dse predict --check`: networks that a user timed, and what their times say of kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dse.cli.comparison import MOST_GROUPS, WORDS, record_of, say_comparison
from dse.cli.screen import Rows, Screen, Value
from dse.report.quantities.unit import percent

if TYPE_CHECKING:
    from dse.measured.networks import CheckedNetworks
    from dse.measured.table import Defaults
    from hwmodels.adapt.deviation import Comparison
    from hwmodels.adapt.network_fit import GroupShift

NOTHING = 0.005
"""Corrections below this are none."""
FEW_NETWORKS = 5
"""Timed calls below which it is said that they tell little."""


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
    # Fitted five times more: only who asks for it pays.
    wanted = out is not None or as_json
    apart = left_out(found.networks, found.comparison) if wanted else None
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
