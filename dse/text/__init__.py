"""Text for language models: a model's own tokenizer, chat templates, files, packing."""
