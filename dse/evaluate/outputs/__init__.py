"""Outputs: what each one is, where its loss is read, and how much it counts."""
