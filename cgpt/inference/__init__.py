"""Continuations and scores of text from a model."""
