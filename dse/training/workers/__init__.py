"""Machines and processes that train side by side."""
