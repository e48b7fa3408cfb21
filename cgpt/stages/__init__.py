"""The stages that take a run id; each is one rule of the workflow."""
