"""The special tokens that the files beside a tokenizer.json name, as transformers reads them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from cgpt.data.end_tokens import EndTokens, end_of_text_tokens
from cgpt.data.tokenizer import unknown_id
from cgpt.errors import UserError
from cgpt.files.encoding import LONE_SURROGATE
from cgpt.files.json_object import read_object

SETTINGS, NAMES, GENERATION = "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"
ADDED = "added_tokens.json"
KINDS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER = ("additional_special_tokens", "extra_special_tokens")
GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def complete(tokenizer: Tokenizer, folder: Path, vocab_size: int | None) -> None:
    """Give a tokenizer the special tokens that the folder's files name, and what they say of a blank before texts.

    Which of them are added to texts says tokenizer.json alone. A token that is not in the vocabulary gets the next id
    where the model has one. Raises UserError for files that hold something else.
    """
    settings = _settings(folder)
    listed = settings.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict) or not all(key.isdecimal() for key in listed):
        raise UserError(f"{folder / SETTINGS}: added_tokens_decoder: maps no ids to tokens; get the file again")
    tokens = [_token(listed[key], "added_tokens_decoder", folder, False) for key in sorted(listed, key=int)]
    tokens += [] if "added_tokens_decoder" in settings else _of_an_older_version(folder, settings)
    tokens += [_token(settings[kind], kind, folder) for kind in KINDS if settings.get(kind) is not None]
    for key in FURTHER:
        more = settings.get(key) or []
        more = list(more.values()) if isinstance(more, dict) else more
        tokens += [_token(value, key, folder) for value in (more if isinstance(more, list) else [more])]
    _add(tokenizer, tokens, vocab_size)
    _set_prefix_space(tokenizer, settings)


def _of_an_older_version(folder: Path, settings: dict[str, Any]) -> list[AddedToken]:
    """The tokens of an added_tokens.json, which are special where another file names them so."""
    ids = _optional(folder / ADDED)
    if any(type(id_) is not int for id_ in ids.values()):
        raise UserError(f"{folder / ADDED}: maps no tokens to ids; get the file again")
    named = [settings.get(kind) for kind in KINDS]
    special = [token.get("content") if isinstance(token, dict) else token for token in named]
    return [_token({"content": text, "normalized": text not in special}, ADDED, folder, text in special)
            for text in sorted(ids, key=ids.__getitem__)]  # fmt: skip


def _set_prefix_space(tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    """Put a blank before texts, or none, as transformers' class for GPT-2's tokenizers does despite tokenizer.json."""
    kind, blank = settings.get("tokenizer_class"), settings.get("add_prefix_space")
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel) and (kind in GPT2_CLASSES or (not kind and blank)):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(blank))


def with_special(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """A copy of a tokenizer that knows tokens of its vocabulary as special ones."""
    copy = tokenizer.from_str(tokenizer.to_str())
    _add(copy, [_token(text, "", Path()) for text in texts], None)
    return copy


def _add(tokenizer: Tokenizer, tokens: Iterable[AddedToken], vocab_size: int | None) -> None:
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in tokens:
        in_vocabulary = tokenizer.token_to_id(token.content) is not None
        room = vocab_size is None or tokenizer.get_vocab_size() < vocab_size
        if token.content and token.content not in there and (in_vocabulary or room):
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
            there.add(token.content)


def end_tokens(folder: Path, tokenizer: Tokenizer, vocab_size: int | None) -> EndTokens:
    """The tokens that end a continuation: those of generation_config.json, else of config.json, else the tokenizer's.

    Ids that the model does not have can never occur; they are as good as none. Raises UserError for other things.
    """
    settings = _settings(folder)
    named = {kind: tokenizer.token_to_id(_token(settings[kind], kind, folder).content)
             for kind in ("bos_token", "eos_token") if settings.get(kind)}  # fmt: skip
    stop: tuple[int, ...] = ()
    for name in (GENERATION, "config.json"):
        stop = stop or _ids(_optional(folder / name).get("eos_token_id"), folder / name, vocab_size)
    candidates = (named.get("eos_token"), *stop, end_of_text_tokens(tokenizer).end)
    end = next((id_ for id_ in candidates if id_ is not None), None)
    return EndTokens(stop or (() if end is None else (end,)), end, named.get("bos_token"))


def to_json(ends: EndTokens, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The end tokens in generation_config.json and in tokenizer_config.json."""
    ids = {"bos_token_id": ends.before_text, "eos_token_id": ends.stop[0] if len(ends.stop) == 1 else [*ends.stop]}
    by_kind = {
        "bos_token": ends.before_text, "eos_token": ends.end, "pad_token": ends.end,
        "unk_token": _unknown(ends, tokenizer),
    }  # fmt: skip
    texts = {kind: None if id_ is None else tokenizer.id_to_token(id_) for kind, id_ in by_kind.items()}
    generation = {key: value for key, value in ids.items() if value not in (None, [])} | {"pad_token_id": ends.end}
    return generation, {kind: text for kind, text in texts.items() if text is not None}


def _unknown(ends: EndTokens, tokenizer: Tokenizer) -> int | None:
    """The special token for what the vocabulary lacks, or the end token, as GPT-2's vocabulary lacks nothing."""
    unknown = unknown_id(tokenizer)
    return unknown if unknown in tokenizer.get_added_tokens_decoder() else ends.end


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; a special_tokens_map.json beside one of an older version counts for more."""
    settings = _optional(folder / SETTINGS)
    return settings if "added_tokens_decoder" in settings else settings | _optional(folder / NAMES)


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _token(value: Any, key: str, folder: Path, special: bool = True) -> AddedToken:
    token = value if isinstance(value, dict) else {"content": value}
    text = token.get("content")
    if not isinstance(text, str) or LONE_SURROGATE.search(text):
        raise UserError(f"{folder / SETTINGS}: {key}: {value!r:.80} is no token; write its text")
    flags = {flag: token[flag] for flag in FLAGS if isinstance(token.get(flag), bool)}
    return AddedToken(text, **({"special": special, "normalized": False} | flags))


def _ids(value: Any, path: Path, vocab_size: int | None) -> tuple[int, ...]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(id_) is not int for id_ in ids):
        raise UserError(f"{path}: eos_token_id: is {value!r:.80}, a token id or a list of them is expected; correct it")
    return tuple(id_ for id_ in ids if id_ >= 0 and (vocab_size is None or id_ < vocab_size))
