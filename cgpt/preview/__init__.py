"""What is tried before anything is spent: tasks and small corpora."""
