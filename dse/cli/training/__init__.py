"""`dse train`, and the price of a training step."""
