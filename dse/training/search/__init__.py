"""A search over methods of training: which operand of which pass is in which format, and how."""
