"""Design-space exploration for low-precision deep learning."""

__version__ = "0.1.0"
