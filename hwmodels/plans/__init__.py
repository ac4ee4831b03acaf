"""Plans of a runtime: an operation becomes kernels, a kernel becomes launches."""
