"""Standard tasks of language models: perplexity, multiple choice, generation, retrieval."""
