"""Cheap estimates of what each choice costs in quality."""
