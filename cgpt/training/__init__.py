"""What trains a model, and what a run keeps while it does."""
