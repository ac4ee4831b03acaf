"""A graph compiled to steps, and steps run with quantizers at their sites."""
