"""Quality and cost of one assignment."""
