"""Who measures a trial: this process, workers, Ray actors."""
