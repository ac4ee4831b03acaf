"""The configurations of PyTorch's torchao."""
