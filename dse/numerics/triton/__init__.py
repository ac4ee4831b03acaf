"""Compiled kernels for CUDA devices; only `kernels`, `rounding` and `scaling` import triton."""
