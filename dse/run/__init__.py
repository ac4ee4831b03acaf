"""The run folder: where its files are, and a finished search read back as data."""
