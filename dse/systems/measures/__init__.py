"""Measures of claims: options in, named numbers out; none knows which system asks."""
