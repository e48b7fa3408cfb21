"""Tokenizers of the kinds that models of transformers come with, trained on a few lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cgpt import checkpoint

TEXTS = [
    "the film is good . the film is bad .", "A calm river and a loud city !", "no yes . who was here ? is it so ?",
    "it isn't, don't you know: 12345 times", "naïve café", "two  blanks and\nlines\n\n",
]  # fmt: skip
SPECIAL = ["<s>", "</s>", "<unk>"]
BYTES = [f"<0x{n:02X}>" for n in range(256)]


def _trained(tokenizer: Tokenizer, kind: type, **options) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS * 3, kind(show_progress=False, **options))
    return tokenizer


def byte_level(**options) -> Tokenizer:
    """GPT-2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(tokenizer, trainers.BpeTrainer, vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet)


def split_then_bytes() -> Tokenizer:
    """Llama 3's kind: a normalizer, a regular expression, bytes, and a token before each text."""
    tokenizer = byte_level(add_prefix_space=False)
    tokenizer.normalizer = normalizers.NFC()
    parts = [pre_tokenizers.Split(Regex(r"\p{N}{1,3}|\s?\p{L}+|\s?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    before = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), before])
    return tokenizer


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The same BPE with a token for each byte, for characters that it does not have."""
    raw = json.loads(tokenizer.to_str())
    vocab = raw["model"]["vocab"]
    vocab |= {token: len(vocab) + n for n, token in enumerate(BYTES)}
    raw["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    return Tokenizer.from_str(json.dumps(raw))


def sentencepiece_bpe() -> Tokenizer:
    """Llama 2's kind: blanks as ▁, one of them before each text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # as it is trained, word by word
    tokenizer = _with_bytes(_trained(tokenizer, trainers.BpeTrainer, vocab_size=90, special_tokens=SPECIAL))
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 0)])
    return tokenizer


def metaspace_bpe() -> Tokenizer:
    """Llama's kind of today."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = _with_bytes(_trained(tokenizer, trainers.BpeTrainer, vocab_size=90, special_tokens=SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """T5's kind: the end token after each text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    options = {"vocab_size": 120, "special_tokens": SPECIAL, "unk_token": "<unk>"}
    tokenizer = _trained(tokenizer, trainers.UnigramTrainer, **options)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer = _trained(tokenizer, trainers.WordPieceTrainer, vocab_size=120, special_tokens=SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _trained(tokenizer, trainers.WordLevelTrainer, vocab_size=80, special_tokens=SPECIAL)


def suffixed_bpe() -> Tokenizer:
    """The first GPT's kind: the end of a word is part of its last token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    options = {"vocab_size": 120, "special_tokens": SPECIAL, "end_of_word_suffix": "</w>"}
    return _trained(tokenizer, trainers.BpeTrainer, **options)


def with_added_tokens() -> Tokenizer:
    tokenizer = byte_level(add_prefix_space=False)
    tokenizer.add_tokens([AddedToken("<|user|>", normalized=False), AddedToken("film", single_word=True)])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    return tokenizer


KINDS = {
    "bytes": lambda: byte_level(add_prefix_space=False), "blank first": lambda: byte_level(add_prefix_space=True),
    "split": split_then_bytes, "sentencepiece": sentencepiece_bpe, "metaspace": metaspace_bpe, "unigram": unigram,
    "wordpiece": word_piece, "words": words, "suffix": suffixed_bpe, "added": with_added_tokens,
}  # fmt: skip
SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def written(folder: Path, tokenizer: Tokenizer, **settings) -> Path:
    """A model of transformers' files with a tokenizer; 10 of its embeddings belong to no token."""
    config = replace(tiny.CONFIG, vocab_size=tokenizer.get_vocab_size() + 10, seq_len=64)
    tokenizer.save(str(folder / "made.json"))
    checkpoint.save(folder / "hf", config, tiny.rough_parameters(config), folder / "made.json")
    (folder / "hf/tokenizer_config.json").write_text(json.dumps(SETTINGS | settings))
    return folder / "hf"


def peer_of(folder: Path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install .[peer])")
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
