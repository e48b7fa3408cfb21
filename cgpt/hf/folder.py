"""A model's folder as Hugging Face transformers has it: read with all that belongs to it, and written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cgpt.errors import UserError, writing
from cgpt.hf.config import DROPOUTS, from_json, read_json, to_json
from cgpt.hf.tokenizer import check_size, read_tokenizer
from cgpt.hf.weights import folded, read_weights
from cgpt.records import whole_folder
from cgpt.spec import Model
from cgpt.tokenize import END_OF_TEXT, byte_level_bpe


def read(folder: Path) -> tuple[Model, dict[str, np.ndarray], Tokenizer]:
    """Configuration, parameters (float32) and tokenizer. Raises UserError."""
    raw = read_json(folder / "config.json")
    config = from_json(raw, folder.resolve().name, str(folder / "config.json"))
    dropped = ", ".join(f"{key} {raw[key]:g}" for key in DROPOUTS if raw.get(key))
    if dropped:
        print(f"{folder / 'config.json'}: {dropped}: trained on here, the model has no dropout", file=sys.stderr)
    return config, read_weights(folder, config), _tokenizer(folder, config.vocab_size)


def _tokenizer(folder: Path, vocab_size: int | None) -> Tokenizer:
    """From tokenizer.json, or from GPT-2's two files, which are all that Cerebras-GPT ships."""
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer(folder, vocab_size)
    vocabulary, merges, added = (folder / name for name in ("vocab.json", "merges.txt", "added_tokens.json"))
    if not (vocabulary.is_file() and merges.is_file()):
        raise UserError(f"{folder}: has neither tokenizer.json nor vocab.json and merges.txt; put the tokenizer there")
    more = read_json(added) if added.is_file() else {}
    try:
        tokenizer = byte_level_bpe(vocabulary, merges)
        tokenizer.add_special_tokens(sorted(more, key=more.__getitem__))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(f"{vocabulary}: is no tokenizer with merges.txt ({error}); get both files again") from None
    check_size(tokenizer, vocabulary, vocab_size)
    return tokenizer


def write(folder: Path, config: Model, params: dict[str, np.ndarray], tokenizer: bytes, card: str) -> None:
    """Write a new folder that transformers opens, whole or not at all. `tokenizer` is what a tokenizer.json holds.

    Raises UserError for a folder that holds something.
    """
    from safetensors.numpy import save

    plain, plain_params = folded(config, params)
    end_of_text = Tokenizer.from_str(tokenizer.decode()).token_to_id(END_OF_TEXT)
    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    known = () if end_of_text is None else ("bos_token", "eos_token", "pad_token")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.seq_len,
        **dict.fromkeys(known, END_OF_TEXT),
    }
    with writing(folder), whole_folder(folder) as part:
        _write_json(part / "config.json", to_json(plain) | ids | {"torch_dtype": "float32"})
        _write_json(part / "generation_config.json", ids | {"pad_token_id": end_of_text})
        _write_json(part / "tokenizer_config.json", tokenizer_config)
        (part / "tokenizer.json").write_bytes(tokenizer)
        (part / "README.md").write_text(card, encoding="utf-8")
        (part / "model.safetensors").write_bytes(save(plain_params, metadata={"format": "pt"}))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
