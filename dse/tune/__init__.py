"""A recipe of a finished search, distilled against the full-precision network."""
