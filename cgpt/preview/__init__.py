"""Tasks and small corpora, tried before anything is spent."""
