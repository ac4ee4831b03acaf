"""Integer accelerators: a MAC array with its memories."""
