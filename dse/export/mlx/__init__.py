"""The checkpoint format of Apple's MLX."""
