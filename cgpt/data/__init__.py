"""From files to token shards: data sets, documents, tokenizers, and the SHA-256 of what files hold."""
