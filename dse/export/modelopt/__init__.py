"""The checkpoint format of NVIDIA's ModelOpt."""
