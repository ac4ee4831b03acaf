"""What hardware sees: number formats as bits, work, devices, kernels and their cost."""
