"""Proposals as models that a runtime loads, and the script that measures them there."""
