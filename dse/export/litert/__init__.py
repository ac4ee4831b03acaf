"""The files of LiteRT (TensorFlow Lite)."""
