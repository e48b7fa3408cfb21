"""A deterministic stand-in for the GPT: a bigram table in NumPy, with the same functions."""

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


def make_model(vocab_size: int, seq_len: int = 64) -> SimpleNamespace:
    """`table[a, b]` is log p(b | a) in nats."""
    logits = np.random.default_rng(0).normal(size=(vocab_size, vocab_size))
    table = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return SimpleNamespace(config=SimpleNamespace(vocab_size=vocab_size, seq_len=seq_len), table=table, calls=[])


def score(model, sequences, first):
    """cgpt.model.loglikelihood.score for the bigram table; refuses what the real one cannot take."""
    answers = []
    model.calls.append([len(tokens) for tokens in sequences])
    for tokens, start in zip(sequences, first):
        assert 1 <= start <= len(tokens) <= model.config.seq_len + 1
        rows = model.table[tokens[start - 1 : -1]]
        answers.append((rows[np.arange(len(rows)), tokens[start:]], rows.argmax(axis=1) == tokens[start:]))
    return answers


def generate(model, prompts, max_new_tokens, config, stop_ids, stop):
    """cgpt.inference.generate.generate for the bigram table."""
    continuations = []
    for prompt in prompts:
        new, last = [], prompt[-1]
        while len(new) < max_new_tokens and not (new and stop(new)):
            last = int(model.table[last].argmax())
            if last in stop_ids:
                break
            new.append(last)
        continuations.append(new)
    return continuations


def direct(model, tokenizer, prompt: str, target: str) -> float:
    """log p(target | prompt) in nats, summed token by token; an empty prompt is <|endoftext|>."""
    left = tokenizer.encode(prompt).ids or [tokenizer.token_to_id("<|endoftext|>")]
    right = tokenizer.encode(prompt + target).ids[len(tokenizer.encode(prompt).ids) :]
    tokens = left + right
    return sum(model.table[tokens[n - 1], tokens[n]] for n in range(len(left), len(tokens)))
