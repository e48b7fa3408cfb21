"""Hugging Face's files: GPT-2-type checkpoints as transformers writes them, read and written without it."""
