"""What is searched: objectives, constraints, records, and which points make the front."""
