"""Small spaces of training methods for tests."""

from __future__ import annotations

from pathlib import Path

from dse.training.search.load import problem_of_space, training_space
from dse.training.search.points import MethodProblem

SPACES = Path(__file__).parents[3] / "spaces"
GRIDS = {
    "e2m1": {"element": "e2m1"},
    "mxfp8": {"format": "e4m3@g32/e8m0-rceil"},
    "bf16": {"format": "bf16"},
}


SMALL = {
    "start": "mxfp8",
    "named": ["mxfp8"],
    "variables": {
        "dgrad": {
            "at": ["weight@dgrad", "activation_gradient@dgrad"],
            "options": {"bf16": {"format": "bf16"}, "mxfp8": {"format": "e4m3@g32/e8m0-rceil"}},
        }
    },
    "search": {"trials": 2, "seeds": 2, "report_seeds": 2},
}
"""Changes of `content`: two methods in ten steps."""


def content(**changes: object) -> dict[str, object]:
    """A space of 3 x 2 x 2 methods around NVIDIA's recipe."""
    return {
        "kind": "training",
        "workload": {"name": "digits-mlp", "steps": 10},
        "cost": {"model": "zoo:byte-gpt", "dims": {"batch": 8, "sequence": 512}},
        "target": "b200-sxm",
        "start": "nvfp4",
        "named": ["nvfp4"],
        "variables": {
            "wgrad_grid": {
                "at": ["activation@wgrad", "activation_gradient@wgrad"],
                "options": GRIDS,
            },
            "dgrad_gradient": {
                "at": ["activation_gradient@dgrad"],
                "elements": ["e2m1"],
                "options": {
                    "nearest": {"rounding": "nearest_even", "headroom": 1},
                    "stochastic": {"rounding": "stochastic", "headroom": 1.0625},
                },
            },
            "fprop_activation": {
                "at": ["activation@fprop"],
                "elements": ["e2m1"],
                "options": {
                    "nearest": {"scales": "plain"},
                    "four over six": {"scales": "four_over_six"},
                },
            },
        },
        "search": {"trials": 10, "seeds": 2, "report_seeds": 3},
        **changes,
    }  # fmt: skip


def problem(**changes: object) -> MethodProblem:
    """The problem of that space."""
    space = training_space(content(**changes), origin="SPACE.yaml")
    return problem_of_space(space, origin="SPACE.yaml", folder=Path())
