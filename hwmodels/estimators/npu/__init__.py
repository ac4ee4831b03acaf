"""NPUs: operations in blocks, weights in a coded stream, activations in an SRAM."""
