"""Draws `results/zero_shot.svg` from `results/zero_shot.csv`; no plotting library needed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"
COLOURS = {
    "roofline": "#c9ced6", "boosted trees, L2": "#8fa3bf", "skeleton": "#f2a65a",
    "by kinship": "#d1495b",
}  # fmt: skip
LABELS = {"by kinship": "skeleton x trees by kinship"}
HEIGHT, TOP, LEFT, BAR, GAP = 260, 46, 48, 26, 34
MOST = 80.0
"""Percent at the top of the axis; longer bars are cut and labelled."""


def main() -> None:
    frame = pd.read_csv(RESULTS / "zero_shot.csv")
    devices = list(dict.fromkeys(frame["device"]))
    width = LEFT + len(devices) * (len(COLOURS) * BAR + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 30}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="{LEFT}" y="16" font-size="13">GEMM latency on a GPU left out: mean absolute '
        "error, % (all number types)</text>",
        *_legend(),
        *_axis(width),
    ]
    for index, device in enumerate(devices):
        start = LEFT + index * (len(COLOURS) * BAR + GAP) + GAP / 2
        rows = frame[frame["device"] == device].set_index("model")["mape_all"]
        parts += [_bar(start + i * BAR, rows[name], name) for i, name in enumerate(COLOURS)]
        middle = start + len(COLOURS) * BAR / 2
        parts.append(
            f'<text x="{middle}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{device}</text>'
        )
    (RESULTS / "zero_shot.svg").write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def _legend() -> list[str]:
    return [
        f'<rect x="{LEFT + 130 * i}" y="24" width="10" height="10" fill="{colour}"/>'
        f'<text x="{LEFT + 130 * i + 14}" y="33">{LABELS.get(name, name)}</text>'
        for i, (name, colour) in enumerate(COLOURS.items())
    ]


def _axis(width: float) -> list[str]:
    return [
        f'<line x1="{LEFT}" x2="{width}" y1="{_y(v)}" y2="{_y(v)}" stroke="#e3e6ea"/>'
        f'<text x="{LEFT - 6}" y="{_y(v) + 4}" text-anchor="end">{v}</text>'
        for v in range(0, int(MOST) + 1, 20)
    ]


def _bar(x: float, value: float, name: str) -> str:
    top = _y(min(value, MOST))
    height = TOP + HEIGHT - top
    return (
        f'<rect x="{x}" y="{top}" width="{BAR - 3}" height="{height}" fill="{COLOURS[name]}"/>'
        f'<text x="{x + BAR / 2 - 1}" y="{top - 3}" text-anchor="middle">{value:.0f}</text>'
    )


def _y(value: float) -> float:
    return TOP + HEIGHT * (1 - value / MOST)


if __name__ == "__main__":
    main()
