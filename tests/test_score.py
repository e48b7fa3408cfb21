"""Scores against the logits, and their independence of batches."""

from __future__ import annotations

import numpy as np
import numpy_gpt
import pytest
import tiny
from tinygrad import Tensor

from cgpt.errors import UserError
from cgpt.model import loglikelihood as scores
from cgpt.model.loglikelihood import score
from cgpt.model.padding import pad, padded_length
from cgpt.spec import Model

CONFIG = Model("scored", n_layer=2, d_model=32, n_head=2, seq_len=72, vocab_size=61)
PARAMS = tiny.rough_parameters(CONFIG)
MODEL = tiny.model(PARAMS, CONFIG)


def sequences(n: int, shortest: int = 2) -> tuple[list[np.ndarray], list[int]]:
    """Random token sequences of all lengths, and where their scored part begins."""
    rng = np.random.default_rng(n)
    lengths = rng.integers(shortest, CONFIG.seq_len + 2, n)
    lengths[:2] = shortest, CONFIG.seq_len + 1
    tokens = [rng.integers(0, CONFIG.vocab_size, length).astype(np.int32) for length in lengths]
    return tokens, [int(rng.integers(1, len(t))) for t in tokens]


def test_a_score_is_the_log_softmax_of_the_numpy_gpts_logits_at_the_token():
    tokens, first = sequences(12)
    for sequence, start, (logprobs, greedy) in zip(tokens, first, score(MODEL, tokens, first)):
        prob = numpy_gpt.softmax(numpy_gpt.run(PARAMS, sequence[None, :-1], n_head=CONFIG.n_head)[0])
        wanted = np.log(prob[np.arange(len(sequence) - 1), sequence[1:]])[start - 1 :]
        np.testing.assert_allclose(logprobs, wanted, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(greedy, (prob.argmax(-1) == sequence[1:])[start - 1 :])
        assert logprobs.shape == greedy.shape == (len(sequence) - start,)
        assert logprobs.dtype == np.float32 and greedy.dtype == bool


def test_the_most_likely_token_is_marked_as_greedy():
    tokens, _ = sequences(3, shortest=20)
    for sequence in tokens:
        best = MODEL(Tensor(sequence[None, :-1], device="CPU")).numpy()[0, -1].argmax()
        for last in (best, (best + 1) % CONFIG.vocab_size):
            changed = np.append(sequence[:-1], last).astype(np.int32)
            assert score(MODEL, [changed], [len(changed) - 1])[0][1].tolist() == [last == best]


def test_choices_that_share_their_prompt_have_the_bits_that_they_have_alone():
    (prompt, other), _ = sequences(2, shortest=20)
    choices = [np.append(prompt[:-1], last).astype(np.int32) for last in (1, 5, 9)] + [other]
    first = [len(choice) - 1 for choice in choices[:2]] + [len(prompt) - 3, 4]
    together = score(MODEL, choices, first)
    for choice, start, (logprobs, greedy) in zip(choices, first, together):
        alone = score(MODEL, [choice], [start])[0]
        np.testing.assert_array_equal(logprobs, alone[0])
        np.testing.assert_array_equal(greedy, alone[1])
    assert len({float(logprobs[-1]) for logprobs, _ in together}) == 4


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 300, 4096])
def test_scores_have_the_same_bits_in_every_order_and_at_every_batch_size(tokens_per_batch, monkeypatch):
    tokens, first = sequences(32)
    alone = [score(MODEL, [t], [f])[0] for t, f in zip(tokens, first)]
    monkeypatch.setattr(scores, "TOKENS_PER_BATCH", tokens_per_batch)
    order = np.random.default_rng(0).permutation(32)
    together = score(MODEL, [tokens[i] for i in order], [first[i] for i in order])
    for i, (logprobs, greedy) in zip(order, together):
        np.testing.assert_array_equal(logprobs, alone[i][0])
        np.testing.assert_array_equal(greedy, alone[i][1])


def test_a_score_follows_the_weights_when_they_change():
    from cgpt.training.trainer import AdamW, Trainer

    tokens, first = sequences(2)
    trainer = Trainer(tiny.model(PARAMS, CONFIG), AdamW())
    for _ in range(3):  # the third call is a replay of captured kernels
        before = score(trainer.model, tokens, first)[0][0]
    batch = pad(tokens, [1, 1], 2, CONFIG.seq_len)
    trainer.step([batch], 0.1)
    after = score(trainer.model, tokens, first)[0][0]
    fresh = score(tiny.model(trainer.model.numpy(), CONFIG), tokens, first)[0][0]
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, fresh)


def test_no_sequences_have_no_scores():
    assert score(MODEL, [], []) == []


def test_a_sequence_that_does_not_fit_is_refused():
    with pytest.raises(UserError) as caught:
        score(MODEL, [np.zeros(CONFIG.seq_len + 2, np.int32)], [1])
    assert str(caught.value) == "seq_len: a sequence of 74 tokens does not fit 72 + 1; cut it first"


def test_padding_stands_to_the_right_and_has_no_target():
    tokens, targets = pad([np.array([5, 6, 7, 8], np.int32), np.array([1, 2], np.int32)], [2, 1], 3, 5)
    assert tokens.tolist() == [[5, 6, 7, 0, 0], [1, 0, 0, 0, 0], [0] * 5]
    assert targets.tolist() == [[-1, 7, 8, -1, -1], [2, -1, -1, -1, -1], [-1] * 5]
    assert tokens.dtype == targets.dtype == np.int32


def test_a_padded_length_is_enough_not_too_long_and_one_of_few():
    for longest in (1, 20, 128, 1024, 2048):
        lengths = [padded_length(n, longest) for n in range(1, longest + 1)]
        assert all(n <= length <= longest for n, length in enumerate(lengths, 1))
        assert lengths == sorted(lengths)
        assert len(set(lengths)) <= 16
    assert [padded_length(n, 1024) for n in (1, 32, 33, 129, 513)] == [32, 32, 64, 192, 768]
