"""Hugging Face folders: linear layers by name, their codes, and a folder written anew."""
