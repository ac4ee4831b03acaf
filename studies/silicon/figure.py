"""Draws `results/errors.svg` from `results/errors.csv`; no plotting library needed."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"
COLOURS = {"fp8_fast": "#d1495b", "fp8_precise": "#f2a65a", "bf16": "#3d7ea6"}
TITLES = {"normal": "operands of both signs", "positive": "positive operands"}
WIDTH, HEIGHT, TOP, LEFT, GAP = 300, 240, 56, 52, 40
DECADES = (-7, 0)
"""Powers of ten at both ends of the error axis."""


def main() -> None:
    frame = pd.read_csv(RESULTS / "errors.csv")
    frame = frame[(frame["rows"] == 2048) & frame["kernel"].isin(COLOURS)]
    total = LEFT + 2 * (WIDTH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {TOP + HEIGHT + 40}" '
        'font-family="sans-serif" font-size="11">',
        f'<text x="{LEFT}" y="16" font-size="13">Error of an H100 product against the exact one '
        "(rms / rms of the product); lines: the emulator</text>",
    ]
    for index, distribution in enumerate(TITLES):
        rows = frame[frame["distribution"] == distribution]
        parts += _panel(LEFT + index * (WIDTH + GAP), distribution, rows)
    (RESULTS / "errors.svg").write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def _panel(left: float, distribution: str, rows: pd.DataFrame) -> list[str]:
    parts = [f'<text x="{left}" y="{TOP - 14}">{TITLES[distribution]}</text>']
    for power in range(DECADES[0], DECADES[1] + 1):
        y = _y(10.0**power)
        parts.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" stroke="#e3e6ea"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">1e{power}</text>'
        )
    parts += [
        f'<text x="{_x(left, depth)}" y="{TOP + HEIGHT + 16}" text-anchor="middle">'
        f"{depth if depth < 1024 else f'{depth // 1024}K'}</text>"
        for depth in sorted(set(rows["depth"]))
    ]
    for kernel, colour in COLOURS.items():
        mean = rows[rows["kernel"] == kernel].groupby("depth")[["rms_device", "rms_model"]].mean()
        across = [_x(left, depth) for depth in mean.index]
        points = list(zip(across, map(_y, mean["rms_device"]), strict=True))
        model = list(zip(across, map(_y, mean["rms_model"]), strict=True))
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in model)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text x="{x - 70}" y="{y - 8}" fill="{colour}">{kernel}</text>')
    return parts


def _x(left: float, depth: float) -> float:
    return left + 16 + (math.log2(depth) - 7) / 7 * (WIDTH - 32)


def _y(error: float) -> float:
    low, high = DECADES
    share = (math.log10(max(error, 10.0**low)) - low) / (high - low)
    return TOP + (1 - share) * HEIGHT


if __name__ == "__main__":
    main()
