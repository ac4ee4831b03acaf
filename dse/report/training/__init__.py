"""Reports of a search over training methods."""
