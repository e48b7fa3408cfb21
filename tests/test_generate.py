"""Continuations against a NumPy GPT that has no cache, and their independence of the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bigram
import numpy as np
import numpy_gpt
import pytest
import tiny

from cgpt.errors import UserError
from cgpt.inference import generate as generation
from cgpt.inference.decoder import Decoder
from cgpt.inference.generate import Generator
from cgpt.inference.stop_strings import StopStrings
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.spec import Model

CONFIG = Model("generated", n_layer=2, d_model=33, n_head=3, seq_len=72, d_ffn=70, vocab_size=61)
PARAMS = tiny.rough_parameters(CONFIG)
MODEL = tiny.model(PARAMS, CONFIG)
GENERATOR = Generator(MODEL)


def prompts(n: int, longest: int = 40) -> list[list[int]]:
    """Random prompts of all lengths from 1 on."""
    rng = np.random.default_rng(n)
    lengths = [1, longest, *rng.integers(1, longest, max(0, n - 2))][:n]
    return [rng.integers(0, CONFIG.vocab_size, length).tolist() for length in lengths]


def next_logits(tokens: list[int]) -> np.ndarray:
    """Logits (V,) of the token after `tokens`, by NumPy."""
    return numpy_gpt.run(PARAMS, np.array([tokens], np.int32), n_head=CONFIG.n_head)[0, -1]


def greedy(prompt: list[int], n: int) -> list[int]:
    """The most likely continuation, by NumPy."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(next_logits(tokens).argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
def test_logits_with_a_cache_are_those_of_the_whole_sequence_for_every_prompt_of_a_batch(kind):
    sequences = prompts(4)
    decoder = Decoder(tiny.model(PARAMS, CONFIG, kind), 4, CONFIG.seq_len)
    for row, sequence in enumerate(sequences):
        decoder.start(slice(row, row + 1), sequence[:-1])
    for _ in range(6):
        logits = decoder.step(np.array([sequence[-1] for sequence in sequences]))
        for sequence, found in zip(sequences, logits):
            np.testing.assert_allclose(found, next_logits(sequence), rtol=0, atol=1e-5)
            sequence.append(int(found.argmax()))


def test_rows_that_share_a_prompt_and_then_part_see_their_own_past():
    decoder = Decoder(MODEL, 3, CONFIG.seq_len)
    decoder.start(slice(0, 3), [3, 1, 4, 1])
    decoder.step(np.array([5, 6, 7]))
    decoder.reorder(slice(0, 3), np.array([2, 0, 0]))
    decoder.step(np.array([8, 9, 10]))
    decoder.reorder(slice(1, 3), np.array([2, 0]))
    logits = decoder.step(np.array([11, 12, 13]))
    for found, past in zip(logits, ([7, 8, 11], [5, 10, 12], [7, 8, 13])):
        np.testing.assert_allclose(found, next_logits([3, 1, 4, 1, *past]), rtol=0, atol=1e-5)


def test_greedy_generation_takes_the_most_likely_token_every_time_until_the_context_is_full():
    found = GENERATOR.generate(prompts(5), 30)
    assert found == [greedy(prompt, min(30, CONFIG.seq_len - len(prompt))) for prompt in prompts(5)]
    assert [len(new) for new in GENERATOR.generate(prompts(5), 500)] == [CONFIG.seq_len - len(p) for p in prompts(5)]
    assert GENERATOR.generate(prompts(2), 0) == [[], []]
    assert GENERATOR.generate([], 5) == []


def test_more_prompts_than_rows_take_the_rows_that_become_free(monkeypatch):
    monkeypatch.setattr(generation, "MAX_CACHE_BYTES", 3 * 8 * CONFIG.n_layer * CONFIG.d_model * 60)  # 3 rows
    stops = [GENERATOR.generate([prompt], 20)[0][i % 7] for i, prompt in enumerate(prompts(8))]
    for stop in stops[:3]:
        together = GENERATOR.generate(prompts(8), 20, stop_ids=[stop])
        assert together == [GENERATOR.generate([prompt], 20, stop_ids=[stop])[0] for prompt in prompts(8)]
        assert len({len(new) for new in together}) > 1
    assert GENERATOR.decoder.rows == 1 and GENERATOR.generate(prompts(8), 20) and GENERATOR.decoder.rows == 3


def test_logits_have_the_same_bits_in_every_batch():
    sequences = prompts(9)

    def logits(chosen: list[int]) -> list[np.ndarray]:
        decoder = Decoder(MODEL, len(chosen), CONFIG.seq_len)
        for row, i in enumerate(chosen):
            decoder.start(slice(row, row + 1), sequences[i][:-1])
        return [decoder.step(np.array([sequences[i][-1] for i in chosen])).copy() for _ in range(3)]

    together = logits(list(range(9)))
    for i in range(9):
        for alone, all_rows in zip(logits([i]), together):
            np.testing.assert_array_equal(alone[0], all_rows[i])


def test_generation_ends_before_a_stop_token_and_after_a_stop_string():
    prompt = [3, 1, 4, 1, 5]
    free = GENERATOR.generate([prompt], 12)[0]
    assert GENERATOR.generate([prompt], 12, stop_ids=[free[6]])[0] == free[: free.index(free[6])]
    assert GENERATOR.generate([prompt], 12, stop=lambda new: free[6] in new)[0] == free[: free.index(free[6]) + 1]


def test_a_stop_string_is_found_where_it_ends_and_the_text_is_cut_before_it():
    tokenizer = bigram.make_tokenizer()
    stop = StopStrings(tokenizer, ["river and", "\n\n", ""])
    tokens = tokenizer.encode("a calm river and a loud city . no yes . who was here").ids
    ends = [i for i in range(1, len(tokens) + 1) if stop(tokens[:i])]
    assert tokenizer.decode(tokens[: ends[0]]).endswith("river and")
    assert max(ends) < len(tokens)  # no longer once the string is far behind
    assert stop.cut("one\n\ntwo river and three") == "one" and stop.cut("one") == "one"
    assert not StopStrings(tokenizer, [])(tokens)


@pytest.mark.parametrize(
    "prompt, message",
    [
        ([], "prompt: is empty; give at least one token (<|endoftext|> starts a document)"),
        ([1, 61], "prompt: token 61 is unknown; the model's are 0 to 60"),
        ([1] * 72, "prompt: has 72 tokens, the model's context of 72 has room for 71 and a new one; shorten it"),
    ],
)
def test_a_prompt_that_the_model_cannot_take_is_refused(prompt, message):
    with pytest.raises(UserError) as caught:
        GENERATOR.generate([[1, 2], prompt], 3)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_a_model_whose_logits_are_not_finite_is_refused(value, settings):
    params = tiny.rough_parameters()
    next(iter(params.values())).flat[3] = value  # of token 0's embedding, which is also the head's
    with pytest.raises(UserError, match="logits are not finite: its weights are damaged"):
        Generator(tiny.model(params)).generate([[1, 2]], 3, GenerationConfig(**settings))


def test_generation_follows_the_weights_when_they_change():
    from cgpt.training.trainer import AdamW, Trainer

    trainer = Trainer(tiny.model(PARAMS, CONFIG), AdamW())
    generator = Generator(trainer.model)
    before = generator.generate(prompts(2), 20)
    trainer.step([tiny.batch(0, 2, CONFIG.seq_len, CONFIG.vocab_size)], 0.1)
    after = generator.generate(prompts(2), 20)
    assert after != before
    assert after == Generator(tiny.model(trainer.model.numpy(), CONFIG)).generate(prompts(2), 20)


DECODE = """
import hashlib, sys
import numpy as np
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.inference.decoder import Decoder
from cgpt.model.gpt import GPT, init_parameters
from cgpt.spec import Model
config = Model("m", n_layer=2, d_model=200, n_head=5, seq_len=90, vocab_size=3001)
ops = backend.prepare(Hardware("cpu", "", device="CPU", kernels="native"), int(sys.argv[1]))
decoder = Decoder(GPT(config, init_parameters(config, 0), ops, "CPU"), 7, 90)
for row in range(7):
    decoder.start(slice(row, row + 1), list(range(9 * row)))
bits = hashlib.sha256()
for step in range(5):
    bits.update(decoder.step(np.arange(7) + step).tobytes())
print(bits.hexdigest())
"""


def test_generation_gives_the_same_bits_with_one_thread_and_with_two():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    found = [
        subprocess.run([sys.executable, "-c", DECODE, n], env=environment, capture_output=True, text=True, timeout=60)
        for n in "12"
    ]
    assert [run.returncode for run in found] == [0, 0], found[0].stderr
    assert found[0].stdout == found[1].stdout
