"""The Optuna study of a run and where it is kept."""
