"""A front shown to people."""
