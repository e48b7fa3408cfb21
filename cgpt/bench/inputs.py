"""Tokens, requests, prompts and text for benchmarks, all from one seed, so that both sides have the same."""

from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from cgpt import checkpoint
from cgpt.data import shards
from cgpt.data.end_tokens import END_OF_TEXT
from cgpt.model.gpt import init_parameters
from cgpt.spec import Model

SEED = 0
LR = 1e-3  # constant, so that ten steps show ten different losses
N_LOSSES = 10  # first losses that are reported, and compared
N_TOKENS = 1 << 20
PROMPT_TOKENS = 32
LONGEST_CONTINUATION, SHORTEST_CONTEXT = 16, 8
TYPICAL_CONTEXT, CONTEXT_SPREAD = 64, 0.8  # median and sigma of the log-normal lengths, in tokens
N_WORDS, TYPICAL_DOCUMENT = 30_000, 150  # distinct words; words in the median document

Request = tuple[tuple[str, str], list[int], list[int]]


def write_tokens(folder: Path, vocab_size: int) -> np.memmap:
    """A token shard on disk, read as training reads it."""
    tokens = np.random.default_rng(SEED).choice(vocab_size, N_TOKENS, p=zipf(vocab_size))
    path = folder / "train.bin"
    with shards.ShardWriter(path, vocab_size, tokenizer_sha256="") as shard:
        shard.append(tokens, n_bytes=0, n_documents=1)
    return shards.open_shard(path)


def zipf(n: int) -> np.ndarray:
    """Probabilities (n,), the k-th proportional to 1/k."""
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()


def read_batch(tokens: np.ndarray, seq_len: int, batch_size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (batch_size, seq_len) int32 of a training step."""
    batch = shards.batches(tokens, seq_len, batch_size, SEED, step)
    return np.ascontiguousarray(batch[:, :-1]), np.ascontiguousarray(batch[:, 1:])


def write_checkpoint(folder: Path, config: Model) -> Path:
    """The initial weights of seed 0 as a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_of_numbers(config.vocab_size or 1).save(str(folder / "tokenizer.json"))
    checkpoint.save(folder, config, init_parameters(config, SEED), folder / "tokenizer.json")
    return folder


def tokenizer_of_numbers(vocab_size: int) -> Tokenizer:
    """A tokenizer for a model that is given token ids: <|endoftext|>, and the ids from 1 on as words."""
    words = {END_OF_TEXT: 0} | {str(id_): id_ for id_ in range(1, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=END_OF_TEXT))
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def requests(config: Model, n_requests: int) -> list[Request]:
    """Log-likelihood requests as lm-evaluation-harness makes them: (texts, context, continuation) of mixed length."""
    rng = np.random.default_rng(SEED)
    drawn: list[Request] = []
    for i in range(n_requests):
        n_continuation = int(rng.integers(1, LONGEST_CONTINUATION + 1))
        typical = TYPICAL_CONTEXT * np.exp(CONTEXT_SPREAD * rng.standard_normal())
        n_context = int(np.clip(typical, SHORTEST_CONTEXT, config.seq_len - n_continuation))
        tokens = rng.integers(0, config.vocab_size or 1, n_context + n_continuation).tolist()
        drawn.append(((f"context {i}", f"continuation {i}"), tokens[:n_context], tokens[n_context:]))
    return drawn


def prompts(config: Model, batch_size: int) -> list[list[int]]:
    """Prompts of PROMPT_TOKENS random tokens."""
    return np.random.default_rng(SEED).integers(0, config.vocab_size or 1, (batch_size, PROMPT_TOKENS)).tolist()


def documents(n_bytes: int) -> list[str]:
    """About so many bytes of made-up ASCII text with the statistics that matter to a tokenizer: words of one to five
    syllables, Zipf-distributed, in documents of log-normal length."""
    rng = np.random.default_rng(SEED)
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    words = ["".join(rng.choice(syllables, n)) for n in rng.integers(1, 6, N_WORDS)]
    most = n_bytes // 3 + 1  # a word and its blank have three bytes at least
    drawn = [words[n] for n in rng.choice(N_WORDS, most, p=zipf(N_WORDS))]
    made: list[str] = []
    size = at = 0
    while size < n_bytes:
        end = at + 1 + int(TYPICAL_DOCUMENT * np.exp(rng.standard_normal()))
        made.append(" ".join(drawn[at:end]))
        size, at = size + len(made[-1]), end
    return made


def text_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE of 8,192 tokens, trained on the first documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts[:500], trainer)
    return tokenizer
