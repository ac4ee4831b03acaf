"""Hardware's view: number formats as bits, work, devices, kernels and their cost."""
