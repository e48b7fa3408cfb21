"""Tasks: from a task's YAML and its data files to documents, prompts and metrics, as lm-evaluation-harness has them."""
