"""The optimizer's step in the formats of a method, and the factor of the loss."""
