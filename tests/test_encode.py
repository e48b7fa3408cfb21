"""Words encoded once: the tokens of any text are those that the tokenizers library gives for it as a whole."""

from __future__ import annotations

import os
import sys
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
from tokenizer_kinds import KINDS
from tokenizers import Tokenizer, pre_tokenizers

from cgpt.bench.inputs import documents, text_tokenizer
from cgpt.data import encode
from cgpt.data.documents import Piece
from cgpt.data.encode import WORD, Encoder
from cgpt.data.tokenizer import byte_level_bpe

MIRROR = Path(os.environ.get("CGPT_DATA_MIRROR") or Path(__file__).parents[2] / "shared" / "data")
FRAGMENTS = [
    " ", " ", " ", "\n", "  ", "\n\n", " \n", "\t", "\r", "\v", "\x1c", "\x1f", "\x85", "\xa0", "\u3000", "\u200b",
    "\u2028", "the", "ba", "a", "I", "'s", "'", "'LL", "12", "٣", "é", "e\u0301", "東京", "🙂", "\U0001f468\u200d",
    "<s>", "</s>", "<|endoftext|>", "!", "...", "\x00", "\ufeff",
]  # fmt: skip


def gpt2() -> Tokenizer:
    folder = MIRROR / "gpt2_tokenizer"
    if not folder.is_dir():
        pytest.skip("no GPT-2 vocabulary: set CGPT_DATA_MIRROR")
    return byte_level_bpe(folder / "encoder.json", folder / "vocab.bpe")


LIKE_GPT2 = {"bytes": KINDS["bytes"], "benchmark": lambda: text_tokenizer(documents(200_000)), "gpt2": gpt2}


def random_text(random: np.random.RandomState) -> str:
    """Fragments that are hard to cut, with any characters among them."""
    drawn = [FRAGMENTS[n] for n in random.randint(len(FRAGMENTS), size=random.randint(1, 40))]
    for n, most in enumerate((0x80, 0x3000, 0xD800, sys.maxunicode)):
        code = random.randint(most)
        if not 0xD800 <= code < 0xE000:
            drawn.insert(random.randint(len(drawn) + 1), chr(code) * (n + 1))
    return "".join(drawn)


def as_wholes(tokenizer: Tokenizer, texts: list[str], end_of_text: int) -> list[int]:
    """The tokens of whole texts by the tokenizers library, each with end-of-text after it."""
    tokenizer.encode_special_tokens = True
    return [id_ for text in texts for id_ in [*tokenizer.encode(text, add_special_tokens=False).ids, end_of_text]]


@pytest.mark.parametrize("name", LIKE_GPT2)
@pytest.mark.parametrize(
    ("kept_chars", "new_share"), [(0, 1), (2000, 1), (encode.KEPT_CHARS, 1), (2000, 0.5), (2000, 0.1)]
)
def test_the_tokens_of_words_are_those_of_the_whole_text(name, kept_chars, new_share, monkeypatch):
    monkeypatch.setattr(encode, "KEPT_CHARS", kept_chars)
    monkeypatch.setattr(encode, "NEW_SHARE", new_share)
    monkeypatch.setattr(encode, "UNSPLIT_BATCHES", 2)
    monkeypatch.setattr(encode, "JOINED_WORDS", 7)
    tokenizer, random = LIKE_GPT2[name](), np.random.RandomState(kept_chars)
    encoder = Encoder(tokenizer, 5, np.dtype("<u4"))
    for _ in range(40):
        texts = [random_text(random) for _ in range(random.randint(1, 60))]
        tokens = encoder.encode([Piece(text, True, False) for text in texts])
        assert tokens.tolist() == as_wholes(tokenizer, texts, 5)


@pytest.mark.parametrize("name", LIKE_GPT2)
def test_the_tokens_of_a_text_of_all_characters_are_those_of_the_whole_text(name):
    tokenizer = LIKE_GPT2[name]()
    characters = map(chr, chain(range(0x400), range(0x1680, 0x1690), range(0x2000, 0x2100), range(0x3000, 0x3050)))
    texts = [form.replace("_", character) for character in characters for form in ("a_ _a", "!_\n_!", "1_1 _ x")]
    tokens = Encoder(tokenizer, 5, np.dtype("<u2")).encode([Piece(text, True, False) for text in texts])
    assert tokens.tolist() == as_wholes(tokenizer, texts, 5)


def test_the_tokenizers_library_cuts_wherever_a_word_begins():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    blanks = [blank for blank in characters if len(WORD.findall(f"a{blank}b")) == 2]
    assert len(blanks) == 25  # Unicode's White_Space
    texts = [" ".join(characters[n : n + 200]) for n in range(0, len(characters), 200)]
    texts += [
        "".join(left + blank + right for left, right in product("a1!é東٣'\x1c\x1f🙂", repeat=2)) for blank in blanks
    ]
    parts = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in texts:
        cuts = {begin for _, (begin, _) in parts.pre_tokenize_str(text)}
        assert {word.start() for word in WORD.finditer(text)} <= cuts


def test_a_document_that_goes_on_in_a_later_piece_has_one_end():
    encoder = Encoder(KINDS["bytes"](), 300, np.dtype("<u2"))
    pieces = [Piece("the film", False, False), Piece(" is good", True, False), Piece("", True, False)]
    whole = as_wholes(encoder.tokenizer, ["the film is good", ""], 300)
    assert encoder.encode(pieces[:1]).tolist() + encoder.encode(pieces[1:]).tolist() == whole
    assert encoder.encode([]).tolist() == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_a_tokenizer_that_may_join_words_is_refused(kind):
    with pytest.raises(ValueError, match="is no byte-level BPE"):
        Encoder(KINDS[kind](), 0, np.dtype("<u2"))


def test_words_that_never_come_again_are_forgotten(monkeypatch):
    monkeypatch.setattr(encode, "KEPT_CHARS", 10_000)
    monkeypatch.setattr(encode, "NEW_SHARE", 1)  # they are learned all the same
    encoder, most = Encoder(KINDS["bytes"](), 0, np.dtype("<u2")), 0
    for n in range(50):
        encoder.encode([Piece(" ".join(f"{n}x{m}" for m in range(100)), True, False)])
        most = max(most, len(encoder._tokens))
    assert 200 < most < 500


def test_a_text_of_new_words_is_encoded_as_it_stands_until_its_words_come_again(monkeypatch):
    monkeypatch.setattr(encode, "UNSPLIT_BATCHES", 2)
    encoder, kept = Encoder(KINDS["bytes"](), 5, np.dtype("<u2")), []
    different, alike = " ".join(f"w{n}" for n in range(50)), " ".join(["alike"] * 50)
    for text in (different, alike, alike, alike, alike):
        encoder.encode([Piece(text, True, False)])
        kept.append(len(encoder._tokens) - 1)
    assert kept == [0, 0, 0, 2, 2]  # "alike" and " alike"
