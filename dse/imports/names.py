"""Names of what a graph keeps between calls."""

PAST, PRESENT = "past_key_values", "present"
"""Beginnings of the names of caches: before a call, and after it."""
