"""From text to tokens: each different word is encoded once, and kept with its tokens as a shard has them.

Where most of a text is new words, as in one without blanks, keeping them does not pay, and it is encoded as it stands.

Byte-level BPE, as GPT-2 has it, first cuts a text into parts, and no part holds a visible character and white space
after it. So the tokens of a text are those of its words, where a word is white space with the visible characters that
follow; and most words of a text were met before. New words are joined, many to a text, and their tokens told apart by
the bytes that each token stands for.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from cgpt.data.documents import Piece
from cgpt.data.shards import ShardWriter

BATCH_CHARS = 1 << 20  # text encoded at once: enough for every core, and little memory
JOINED_WORDS = 512
KEPT_CHARS = 1 << 23  # of words that are kept; with their tokens some 60 MB of English
CHARS_OF_A_WORD = 32  # that a kept word counts beside its own
NEW_SHARE = 0.5  # of a batch's characters, above which learning its new words does not pay
UNSPLIT_BATCHES = 15  # that follow such a batch, before words are tried again
# Python takes four control characters for white space that the tokenizers library does not.
WORD = re.compile(r"\s*[\S\x1c-\x1f]+|\s+")
ALPHABET = pre_tokenizers.ByteLevel.alphabet()  # a character for each byte
Batch = list[tuple[str, Piece]]  # with its split


def encode(
    tokenizer: Tokenizer, end_of_text: int, corpus: Iterable[tuple[str, Piece]], writers: dict[str, ShardWriter]
) -> None:
    """Append the corpus's tokens to the writer of each piece's split. All writers have the same type of tokens."""
    (dtype,) = {writer.dtype for writer in writers.values()}
    encoder = Encoder(tokenizer, end_of_text, dtype)
    for batch in _batches(corpus):
        for split, writer in writers.items():
            pieces = [piece for of_split, piece in batch if of_split == split]
            n_bytes = sum(len(piece.text.encode()) for piece in pieces)
            writer.append(encoder.encode(pieces), n_bytes, sum(piece.ends_document for piece in pieces))


def _batches(corpus: Iterable[tuple[str, Piece]]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for split, piece in corpus:
        batch.append((split, piece))
        size += len(piece.text)
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class Encoder:
    """A tokenizer with the words that it has encoded; the spelling of a special token in a text is text.

    Raises ValueError for a tokenizer that is not of GPT-2's kind.
    """

    def __init__(self, tokenizer: Tokenizer, end_of_text: int, dtype: np.dtype):
        if not is_like_gpt2(tokenizer):
            raise ValueError("the tokenizer is no byte-level BPE that cuts texts as GPT-2's does")
        tokenizer.encode_special_tokens = True
        self.tokenizer, self.dtype = tokenizer, dtype
        vocabulary = tokenizer.get_vocab()
        self._n_bytes = np.zeros(max(vocabulary.values()) + 1, np.int64)  # of each token
        self._n_bytes[[*vocabulary.values()]] = [*map(len, vocabulary)]  # as ALPHABET spells them
        self._end_of_text, self._n_unsplit = end_of_text, 0
        self._forget()

    def encode(self, pieces: Iterable[Piece]) -> np.ndarray:
        """The tokens of the pieces, (n_tokens,), with end-of-text where a document ends."""
        pieces = list(pieces)
        if self._n_unsplit:
            self._n_unsplit -= 1
            return self._encode_unsplit(pieces)
        if self._n_chars > KEPT_CHARS:
            self._forget()
        words: list[str | None] = []
        for piece in pieces:
            words += WORD.findall(piece.text)
            if piece.ends_document:
                words.append(None)
        if new := [word for word in set(words).difference(self._tokens) if word is not None]:
            if sum(map(len, new)) > NEW_SHARE * sum(len(piece.text) for piece in pieces):
                self._n_unsplit = UNSPLIT_BATCHES
                return self._encode_unsplit(pieces)
            self._learn(new)
        return np.frombuffer(b"".join(map(self._tokens.__getitem__, words)), self.dtype)

    def _encode_unsplit(self, pieces: list[Piece]) -> np.ndarray:
        encodings = self.tokenizer.encode_batch_fast([piece.text for piece in pieces], add_special_tokens=False)
        ends = ([self._end_of_text] if piece.ends_document else [] for piece in pieces)
        return np.fromiter(
            chain.from_iterable(encoding.ids + end for encoding, end in zip(encodings, ends)), self.dtype
        )

    def _forget(self) -> None:
        self._tokens: dict[str | None, bytes] = {
            None: np.array([self._end_of_text], self.dtype).tobytes()
        }  # None: a document ends
        self._n_chars = 0

    def _learn(self, words: list[str]) -> None:
        """Keep the tokens of new words. Joined are those that white space begins and no white space ends."""
        inner: list[str] = []
        others: list[str] = []
        for word in words:
            (inner if word[0] in " \n" and not word[-1].isspace() else others).append(word)
        texts = ["".join(inner[i : i + JOINED_WORDS]) for i in range(0, len(inner), JOINED_WORDS)] + others
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), self.dtype)
        in_order = inner + others
        last_bytes = np.cumsum([len(word.encode()) for word in in_order])
        ends = np.searchsorted(np.cumsum(self._n_bytes[tokens]), last_bytes) + 1  # of words, in tokens
        block, size = tokens.tobytes(), self.dtype.itemsize
        for word, (begin, end) in zip(in_order, pairwise([0, *(ends * size).tolist()])):
            self._tokens[word] = block[begin:end]
            self._n_chars += len(word) + CHARS_OF_A_WORD


def is_like_gpt2(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer is BPE over all bytes, takes texts as they are and cuts them as GPT-2's does."""
    parts, model = tokenizer.pre_tokenizer, tokenizer.model
    cuts_as_gpt2 = isinstance(parts, pre_tokenizers.ByteLevel) and parts.use_regex and not parts.add_prefix_space
    of_bytes = isinstance(model, models.BPE) and not (model.continuing_subword_prefix or model.end_of_word_suffix)
    added = tokenizer.get_added_tokens_decoder().values()
    as_it_is = tokenizer.normalizer is None and all(token.special for token in added) and not tokenizer.truncation
    return cuts_as_gpt2 and of_bytes and as_it_is and None not in map(tokenizer.token_to_id, ALPHABET)
