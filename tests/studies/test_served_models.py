"""The study's README has the numbers of its results."""

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parents[2] / "studies" / "served_models"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SETTINGS = pd.read_csv(FOLDER / "results" / "settings.csv")


def test_the_readme_says_how_far_a_served_model_is() -> None:
    fitting = SETTINGS[SETTINGS["fits"]]
    error = fitting["tpot_error"].abs()
    words = f"{100 * error.mean():.1f} % mean error over the {len(fitting)} settings that fit"
    assert words in README
    assert (
        f"{100 * (error < 0.25).mean():.0f} % within 25 %, the worst {100 * error.max():.0f} %"
        in (README)
    )


def test_the_readme_has_the_cold_rows() -> None:
    for row in pd.read_csv(FOLDER / "results" / "cold.csv").to_dict("records"):
        cells = [row["runtime"], row["weights"], str(row["rows"])]
        slope = f"{row['slope']:.2f}"
        cells += [f"{row[name]:.1f} %" for name in ("no_trees", "trees", "by_share")]
        assert f"| {' | '.join([*cells, slope])} |" in README
