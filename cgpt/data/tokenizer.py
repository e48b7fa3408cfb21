"""Tokenizers: the tokenizer.json of a folder, and byte-level BPE."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from cgpt.data.end_tokens import END_OF_TEXT
from cgpt.errors import UserError
from cgpt.files.json_object import AGAIN, read_object

REMEDY = "delete its folder, so that its run is done again"
RECORDS = {"run.json": b'"code_sha256"', "tokens.json": b'"tokenizer_sha256"'}  # of our runs, and what they hold
RANDOM = ("dropout", "alpha", "nbest_size")  # settings of a model that give a text other tokens each time
TEMPLATES = ("single", "pair")


def remedy(folder: Path) -> str:
    """Advice about a wrong file of the folder: to delete it only where a run of ours made it."""
    ours = any((folder / name).is_file() and mark in (folder / name).read_bytes() for name, mark in RECORDS.items())
    return REMEDY if ours else AGAIN


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a folder, which gives a whole text its tokens and the same ones every time.

    Padding, truncation and sampling, which were somebody's settings when it was saved, are off. Raises UserError when
    it is missing, or has tokens that a model of `vocab_size` does not have.
    """
    path = folder / "tokenizer.json"
    again = remedy(folder)
    if not path.exists():
        raise UserError(f"{path}: is missing; {again}")
    raw = read_object(path, again)
    raw |= {"padding": None, "truncation": None}
    if isinstance(model := raw.get("model"), dict):
        model |= {setting: None for setting in RANDOM if setting in model}
    with _refused(f"{path}: is no tokenizer", again):
        tokenizer = Tokenizer.from_str(json.dumps(raw))
    for name in _without_definition(raw.get("post_processor")):
        raise UserError(f"{path}: post_processor: adds {name!r} and does not say what it is; {again}")
    check_ids(tokenizer, path, vocab_size)
    return tokenizer


def check_ids(tokenizer: Tokenizer, path: Path, vocab_size: int | None) -> None:
    """Raise UserError for a tokenizer that may give a token which its model does not have."""
    if vocab_size is None:
        return
    n = tokenizer.get_vocab_size()
    if n > vocab_size:
        raise UserError(f"{path}: vocabulary: has {n} tokens, the model {vocab_size}; take the model's own tokenizer")
    added = token_ids(tokenizer, "", add_special_tokens=True)
    greatest = max([*tokenizer.get_vocab().values(), *added], default=0)
    if greatest >= vocab_size:
        raise UserError(
            f"{path}: vocabulary: has the token id {greatest}, the model's are 0 to {vocab_size - 1}; "
            "take the model's own tokenizer"
        )


def give_the_same_tokens(one: Path, other: Path) -> bool:
    """Whether two tokenizer.json, of byte-level BPE as GPT-2 has it, give every text the same tokens."""
    if one.read_bytes() == other.read_bytes():
        return True
    whole = [Tokenizer.from_file(str(path)) for path in (one, other)]
    raw = [json.loads(tokenizer.to_str()) for tokenizer in whole]
    cuts = [
        {key: value for key, value in (each["pre_tokenizer"] or {}).items() if key != "trim_offsets"} for each in raw
    ]
    merges = [each["model"].get("merges") for each in raw]
    normalizers = [each["normalizer"] for each in raw]
    vocabularies = [tokenizer.get_vocab() for tokenizer in whole]
    return all(first == second for first, second in (cuts, merges, normalizers, vocabularies))


def token_ids(tokenizer: Tokenizer, text: str, add_special_tokens: bool) -> list[int]:
    """The tokens of a text, with those that the tokenizer adds at its ends or without. Raises UserError."""
    # Of a vocabulary that lacks a word, or the token for such words.
    with _refused(f"tokenizer.json: cannot encode {text!r:.60}", "take the model's own tokenizer"):
        return tokenizer.encode(text, add_special_tokens=add_special_tokens).ids


@contextmanager
def _refused(what: str, instead: str) -> Iterator[None]:
    """Turn what the tokenizers library raises into a UserError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain Exception, and where its Rust code panics, not even that
        raise UserError(f"{what} ({error}); {instead}") from None


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token that stands for what a tokenizer has no other one for."""
    if isinstance(tokenizer.model, models.Unigram):  # which does not tell otherwise
        return json.loads(tokenizer.to_str())["model"]["unk_id"]
    unknown = tokenizer.model.unk_token
    return None if unknown is None else tokenizer.token_to_id(unknown)


def _without_definition(processor: Any) -> Iterator[str]:
    """Special tokens that a template adds and nothing defines; the tokenizers library would abort at the first text."""
    if not isinstance(processor, dict):
        return
    for part in processor.get("processors") or ():
        yield from _without_definition(part)
    defined = processor.get("special_tokens") or {}
    for template in TEMPLATES:
        for piece in processor.get(template) or ():
            name = piece["SpecialToken"]["id"] if "SpecialToken" in piece else None
            if name is not None and name not in defined:
                yield name


def byte_level_bpe(vocabulary: Path, merges: Path) -> Tokenizer:
    """The tokenizer that GPT-2's two files describe; <|endoftext|> is a special token where it is in the vocabulary."""
    tokenizer = _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
    if tokenizer.token_to_id(END_OF_TEXT) is not None:
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
