"""The target `gguf`: packed blocks, names and metadata as llama.cpp reads them."""
