"""Lessons of calibration data about weights: ranges, roundings, smoothing, equalisation."""
