"""Chips as data: what a device is, its files and their checks."""
