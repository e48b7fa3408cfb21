"""The tokenizer.json of a checkpoint or token folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cgpt.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REMEDY = "delete its folder, so that its run is done again"


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint or token folder. Raises UserError when it is missing or has another vocabulary."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path}: is missing; {REMEDY}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(f"{path}: is no tokenizer ({error}); {REMEDY}") from None
    check_size(tokenizer, path, vocab_size)
    return tokenizer


def check_size(tokenizer: Tokenizer, path: Path, vocab_size: int | None) -> None:
    """Raise UserError for a tokenizer with more tokens than its model."""
    found = tokenizer.get_vocab_size()
    if vocab_size is not None and found > vocab_size:
        raise UserError(
            f"{path}: vocabulary: has {found} tokens, the model {vocab_size}; take the model's own tokenizer"
        )
