"""GPUs: an analytic skeleton times a learned residual."""
