"""How a runtime does it: an operation becomes kernels, a kernel becomes launches."""
