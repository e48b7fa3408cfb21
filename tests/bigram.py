"""A deterministic stand-in for the GPT: a bigram table in NumPy. The fixture `bigram_decoder` lets it generate."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = ["the film is good . the film is bad . a calm river and a loud city .", "no yes . who was here ? is it so ?"]


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE of about 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


class Bigram:
    """`table[a, b]` is log p(b | a) in nats; answers what `score` and `Decoder` ask of a GPT."""

    ends = None

    def __init__(self, table: np.ndarray, seq_len: int):
        self.table, self.config = table, SimpleNamespace(vocab_size=len(table), seq_len=seq_len, n_layer=1, d_model=1)
        self.lengths: list[int] = []  # of the batches that were scored

    def captured(self, function, tokens, targets):
        """Runs the function as it is."""
        self.lengths.append(tokens.shape[1])
        return function(tokens, targets)

    def token_logprobs(self, tokens, targets):
        """log p of targets (B, T, K) after tokens (B, T), and whether each is the most likely token."""
        logprobs = self.table[tokens]  # (B, T, V)
        return np.take_along_axis(logprobs, np.maximum(targets, 0), -1), logprobs.argmax(-1)[..., None] == targets


class Decoder:
    """cgpt.inference.decoder.Decoder for the bigram table, of which the last token is all that counts."""

    def __init__(self, model: Bigram, rows: int, length: int):
        assert 1 <= length <= model.config.seq_len
        self.model, self.rows, self.length = model, rows, length

    def start(self, rows, tokens):
        assert len(tokens) < self.length

    def step(self, tokens):
        return self.model.table[tokens]


def make_model(vocab_size: int, seq_len: int = 64) -> Bigram:
    """Random log-probabilities."""
    logits = np.random.default_rng(0).normal(size=(vocab_size, vocab_size))
    return Bigram(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), seq_len)


def direct(model, tokenizer, prompt: str, target: str) -> float:
    """log p(target | prompt) in nats, summed token by token; an empty prompt is <|endoftext|>."""
    left = tokenizer.encode(prompt).ids or [tokenizer.token_to_id("<|endoftext|>")]
    right = tokenizer.encode(prompt + target).ids[len(tokenizer.encode(prompt).ids) :]
    tokens = left + right
    return sum(model.table[tokens[n - 1], tokens[n]] for n in range(len(left), len(tokens)))
