"""Checkpoint folders, and models as Hugging Face transformers has them: read and written without it."""

from cgpt.checkpoint.folder import export_hf, import_hf, load, read_config, read_params, save, weights_in

__all__ = ["export_hf", "import_hf", "load", "read_config", "read_params", "save", "weights_in"]
