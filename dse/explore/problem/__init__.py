"""The problem of a search: objectives, constraints, records, and which points make the front."""
