"""Quantities of a run as a reader meets them: units, axes, the baseline, parts of the time."""
