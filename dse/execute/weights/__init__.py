"""What calibration data teach about weights: ranges, roundings, smoothing, equalisation."""
