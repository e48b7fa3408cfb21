"""Checkpoint folders, and models as Hugging Face transformers has them: read and written without it."""

from cgpt.checkpoint.folder import (
    TOKENIZER_FILE,
    export_hf,
    import_hf,
    load,
    read_config,
    save,
)
