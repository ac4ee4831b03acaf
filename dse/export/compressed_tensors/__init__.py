"""The checkpoint format of vLLM's compressed-tensors."""
