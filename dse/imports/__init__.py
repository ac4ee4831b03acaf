"""Models of other libraries as graphs: Hugging Face folders and torch modules."""
