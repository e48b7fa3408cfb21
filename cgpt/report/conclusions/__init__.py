"""One sentence that answers an experiment's question, with its number and its interval."""
