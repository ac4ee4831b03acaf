"""Measuring the operators of the machine that this runs on."""
