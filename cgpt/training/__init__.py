"""The trainer of a model, and all that a training run keeps while it runs."""
