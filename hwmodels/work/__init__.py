"""Work to be done: operations, operands, kernels with their loops, and their parts on a GPU."""
