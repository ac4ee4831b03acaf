"""Graphs at bound sizes as `hwmodels` work."""
