"""Adapters on a frozen network that is pruned while they are trained (APT, arXiv 2401.12200)."""
