"""Log-likelihoods from a model. A score never depends on what it was batched with."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cgpt.errors import UserError
from cgpt.model.gpt import GPT
from cgpt.model.ids import check_ids
from cgpt.model.padding import NO_TARGET, pad, padded_length
from cgpt.spec import Model

TOKENS_PER_BATCH = 4096


def score(
    model: GPT,
    sequences: Sequence[np.ndarray],
    first: Sequence[int],
    on_scored: Callable[[int], object] = lambda n_sequences: None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each token sequence, log p (nats) of tokens[first:] given all before, and whether each is the most likely.

    `sequences[i]` has at most seq_len + 1 tokens, 1 <= first[i] <= its length. Returns a pair of arrays
    (n - first,) float32 and bool per sequence. The longest are scored first; `on_scored` is given the number of
    sequences that are done after each batch. Raises UserError for a sequence that is too long, ValueError for ids that
    the model has not and for a `first` outside of its sequence.
    """
    sequences = _checked(sequences, first, model.config)
    # Sequences that differ in their last token alone, as the choices of a question often do, are one forward pass.
    same_inputs: dict[tuple[bytes, int], list[int]] = {}
    for i, sequence in enumerate(sequences):
        same_inputs.setdefault((sequence[:-1].tobytes(), first[i]), []).append(i)
    n_targets = max(map(len, same_inputs.values()), default=1)
    results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for rows, length, batch in _batches(list(same_inputs.values()), sequences, model.config.seq_len):
        leaders = [members[0] for members in batch]
        tokens, targets = pad([sequences[i] for i in leaders], [first[i] for i in leaders], rows, length)
        last = np.full((rows, length, n_targets), NO_TARGET, np.int32)
        for row, members in enumerate(batch):
            last[row, :, : len(members)] = targets[row, :, None]
            last[row, len(sequences[members[0]]) - 2, : len(members)] = [sequences[i][-1] for i in members]
        logprobs, greedy = model.captured(model.token_logprobs, tokens, last)
        for row, members in enumerate(batch):
            part = slice(first[members[0]] - 1, len(sequences[members[0]]) - 1)
            for k, i in enumerate(members):
                results[i] = logprobs[row, part, k].copy(), greedy[row, part, k].astype(bool)
        on_scored(len(results))
    return [results[i] for i in range(len(sequences))]


def _checked(sequences: Sequence[np.ndarray], first: Sequence[int], config: Model) -> list[np.ndarray]:
    """The sequences as arrays of one type, by whose bytes they are told apart."""
    checked = []
    for tokens, start in zip(sequences, first, strict=True):
        if len(tokens) > config.seq_len + 1:
            raise UserError(f"seq_len: a sequence of {len(tokens)} tokens does not fit {config.seq_len} + 1; "
                            "cut it first")  # fmt: skip
        if not 1 <= start <= len(tokens):
            raise ValueError(f"first: is {start} in a sequence of {len(tokens)} tokens; write 1 to their number")
        checked.append(check_ids(tokens, config, "tokens").astype(np.int32))
        if checked[-1].ndim != 1:
            raise ValueError(f"tokens: have shape {checked[-1].shape}; write (n,): the ids of one sequence")
    return checked


def _batches(
    groups: Sequence[list[int]], sequences: Sequence[np.ndarray], seq_len: int
) -> Iterator[tuple[int, int, list[list[int]]]]:
    """Rows, padded length and groups of each batch, the longest first. A group has the same inputs: it is one row."""
    of_length: dict[int, list[list[int]]] = {}
    for members in groups:
        of_length.setdefault(padded_length(max(1, len(sequences[members[0]]) - 1), seq_len), []).append(members)
    for length, alike in sorted(of_length.items(), reverse=True):
        rows = min(max(1, TOKENS_PER_BATCH // length), 1 << (len(alike) - 1).bit_length())
        for start in range(0, len(alike), rows):
            yield rows, length, alike[start : start + rows]
