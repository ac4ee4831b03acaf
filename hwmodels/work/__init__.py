"""What is to be done: operations, operands, kernels, and how they are shared out."""
