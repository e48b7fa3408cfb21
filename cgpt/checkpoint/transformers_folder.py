"""A model's folder as Hugging Face transformers has it: read with all that belongs to it, and written."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cgpt.checkpoint.safetensors_file import write_safetensors
from cgpt.checkpoint.stored import Weights
from cgpt.checkpoint.weights import folded, read_weights
from cgpt.data import special_tokens
from cgpt.data.end_tokens import EndTokens
from cgpt.data.tokenizer import byte_level_bpe, check_ids, read_tokenizer
from cgpt.errors import UserError
from cgpt.files.json_object import AGAIN, read_object
from cgpt.files.whole import whole_folder
from cgpt.model.config import DROPOUTS, NO_CHECKPOINT, from_json, to_json
from cgpt.model.gpt import parameter_shapes
from cgpt.spec import Model


def read(folder: Path) -> tuple[Model, Weights, Tokenizer]:
    """Configuration, parameters (float32, each read when it is asked for) and tokenizer. Raises UserError."""
    raw = read_object(folder / "config.json", AGAIN, NO_CHECKPOINT)
    config = from_json(raw, folder.resolve().name, str(folder / "config.json"))
    dropped = ", ".join(f"{key} {raw[key]:g}" for key in DROPOUTS if raw.get(key))
    if dropped:
        print(f"{folder / 'config.json'}: {dropped}: trained on here, the model has no dropout", file=sys.stderr)
    return config, read_weights(folder, config), _tokenizer(folder, config.vocab_size)


def _tokenizer(folder: Path, vocab_size: int | None) -> Tokenizer:
    """From tokenizer.json, or from GPT-2's two files, which are all that Cerebras-GPT ships."""
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer(folder, vocab_size)
    else:
        tokenizer = _of_two_files(folder)
        check_ids(tokenizer, folder / "vocab.json", vocab_size)
    special_tokens.complete(tokenizer, folder, vocab_size)
    return tokenizer


def _of_two_files(folder: Path) -> Tokenizer:
    vocabulary, merges, added = (folder / name for name in ("vocab.json", "merges.txt", "added_tokens.json"))
    if not (vocabulary.is_file() and merges.is_file()):
        raise UserError(f"{folder}: has neither tokenizer.json nor vocab.json and merges.txt; put the tokenizer there")
    more = read_object(added) if added.is_file() else {}
    try:
        tokenizer = byte_level_bpe(vocabulary, merges)
        tokenizer.add_special_tokens(sorted(more, key=more.__getitem__))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise UserError(f"{vocabulary}: is no tokenizer with merges.txt ({error}); get both files again") from None
    return tokenizer


def write(
    folder: Path, config: Model, params: Mapping[str, np.ndarray], tokenizer: Tokenizer, ends: EndTokens, card: str
) -> None:
    """Write a new folder that transformers opens, whole or not at all.

    Raises UserError for a folder that holds something.
    """
    plain, plain_params = folded(config, params)
    generation, _ = special_tokens.to_json(ends, tokenizer)
    ids = {key: generation.get(key) for key in ("bos_token_id", "eos_token_id")}
    with whole_folder(folder) as part:
        _write_json(part / "config.json", to_json(plain) | ids | {"torch_dtype": "float32"})
        write_tokenizer(part, tokenizer, ends, config.seq_len)
        (part / "README.md").write_text(card, encoding="utf-8")
        write_safetensors(part / "model.safetensors", parameter_shapes(plain), plain_params)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, ends: EndTokens, seq_len: int) -> None:
    """Write the tokenizer, and the files that name its end tokens."""
    generation, texts = special_tokens.to_json(ends, tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": seq_len}
    whole = special_tokens.with_special(tokenizer, texts.values())
    (folder / "tokenizer.json").write_text(whole.to_str(pretty=True), encoding="utf-8")
    _write_json(folder / special_tokens.GENERATION, generation)
    _write_json(folder / special_tokens.SETTINGS, settings | texts)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
