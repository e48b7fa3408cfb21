"""The operations of a GPT in plain tinygrad."""
