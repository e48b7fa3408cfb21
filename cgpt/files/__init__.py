"""Files as they are read and written: bounds, encodings, YAML, and files that are there whole or not at all."""
