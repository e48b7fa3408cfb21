"""Greedy decoding and beam search token for token as in transformers; what is drawn follows the softmax."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny
from scipy.stats import chisquare

from cgpt.errors import UserError
from cgpt.inference.generate import Generator
from cgpt.inference.sampling import distribution, draw, process
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.spec import Model

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # for such small products more only wait for each other
transformers = pytest.importorskip("transformers")

GRID = [
    Model("a", n_layer=2, d_model=33, n_head=3, seq_len=48, d_ffn=70, vocab_size=61),
    Model("b", n_layer=1, d_model=16, n_head=16, seq_len=48, vocab_size=257),
    Model("c", n_layer=3, d_model=40, n_head=1, seq_len=48, d_ffn=17, vocab_size=100),
    Model("d", n_layer=2, d_model=63, n_head=7, seq_len=48, vocab_size=331),
]
PADDING = 7
NAME = "config {0.name}".format


@functools.cache
def models(config: Model):
    """Our generator and transformers' model with the same weights, whose text neither repeats nor is noise."""
    params = tiny.rough_parameters(config, seed=3)
    settings = transformers.GPT2Config(
        n_layer=config.n_layer, n_embd=config.d_model, n_head=config.n_head, n_positions=config.seq_len,
        n_inner=config.d_ffn, vocab_size=config.vocab_size, activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    peer = transformers.GPT2LMHeadModel(settings).eval()
    missing, unknown = peer.load_state_dict({name: torch.tensor(p) for name, p in params.items()}, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unknown
    peer.tie_weights()
    return Generator(tiny.model(params, config)), peer


def prompts(config: Model, n: int = 5, length: int | None = None) -> list[list[int]]:
    """Random prompts of different lengths, or all of one length."""
    rng = np.random.default_rng([config.d_model, n])
    lengths = rng.permutation(np.linspace(1, 20, n).astype(int)) if length is None else [length] * n
    return [rng.integers(0, config.vocab_size, k).tolist() for k in lengths]


def theirs(config: Model, prompts: list[list[int]], max_new_tokens: int, eos_token_id: int | None = None, **options):
    """New tokens from transformers' `generate`, without the end-of-text token and the padding; prompts padded left."""
    longest = max(map(len, prompts))
    padding = PADDING if eos_token_id is None else eos_token_id
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = models(config)[1].generate(
        ids, attention_mask=mask, max_new_tokens=max_new_tokens, pad_token_id=padding, eos_token_id=eos_token_id,
        **({"do_sample": False} | options),
    )  # fmt: skip
    new = [row[longest:].tolist() for row in out]
    return [row[: row.index(eos_token_id)] if eos_token_id in row else row for row in new]


@pytest.mark.parametrize("config", GRID, ids=NAME)
def test_greedy_decoding_gives_the_tokens_of_transformers_for_prompts_of_different_lengths(config):
    wanted = theirs(config, prompts(config), 25)
    assert models(config)[0].generate(prompts(config), 25) == wanted
    stop = wanted[1][8]
    stopped = theirs(config, prompts(config), 25, eos_token_id=stop)
    assert models(config)[0].generate(prompts(config), 25, stop_ids=[stop]) == stopped != wanted


BEAMS = [
    {"num_beams": 2},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 4, "num_return_sequences": 2, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 1.5, "early_stopping": "never"},
    {"num_beams": 4, "num_return_sequences": 4, "length_penalty": -1.0},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("config", [GRID[0], *(pytest.param(c, marks=pytest.mark.slow) for c in GRID[1:])], ids=NAME)
def test_beam_search_gives_the_sequences_of_transformers(config):
    ended_early = 0
    for options in BEAMS:
        few = prompts(config, 3, length=6 if "no_repeat_ngram_size" in options else None)
        free = theirs(config, few, 20, **options)
        for stop in (None, free[0][2], free[1][9], free[-1][5]):
            wanted = theirs(config, few, 20, eos_token_id=stop, **options)
            settings = GenerationConfig(**options)
            assert models(config)[0].generate(few, 20, settings, stop_ids=[] if stop is None else [stop]) == wanted
            ended_early += sum(len(new) < 20 for new in wanted)
    assert ended_early > 10


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.5}, {"repetition_penalty": 0.7}, {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2},
     {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1}],
    ids=str,
)  # fmt: skip
def test_penalties_on_repetition_give_the_tokens_of_transformers(options):
    few = prompts(GRID[1], 5, length=5)
    wanted = theirs(GRID[1], few, 30, **options)
    assert models(GRID[1])[0].generate(few, 30, GenerationConfig(**options)) == wanted
    assert wanted != theirs(GRID[1], few, 30)


def test_repetition_penalty_ignores_padding_as_transformers_does():
    few = prompts(GRID[0])
    wanted = theirs(GRID[0], few, 20, repetition_penalty=1.5)
    assert models(GRID[0])[0].generate(few, 20, GenerationConfig(repetition_penalty=1.5)) == wanted


WARPERS = [
    {}, {"top_k": 0}, {"temperature": 0.7}, {"top_k": 5}, {"top_k": 0, "top_p": 0.8}, {"top_k": 0, "top_p": 1e-6},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.9}, {"temperature": 0.3, "repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2, "top_k": 7},
]  # fmt: skip


@pytest.mark.parametrize("options", WARPERS, ids=str)
def test_the_distribution_that_is_drawn_from_is_that_of_transformers_processors(options):
    rng = np.random.default_rng(0)
    tokens, logits = rng.integers(0, 80, 40).tolist(), (3 * rng.normal(size=80)).astype(np.float32)
    peer = models(GRID[0])[1]
    settings = transformers.GenerationConfig(do_sample=True, **({"top_k": 50} | options))
    processors = peer._get_logits_processor(settings, input_ids_seq_length=40, model_kwargs={})
    scores = processors(torch.tensor([tokens]), torch.tensor(logits[None]))
    config = GenerationConfig(do_sample=True, **options)
    kept, prob = distribution(process(logits, tokens, config), config)
    result = np.zeros(80)
    result[kept] = prob
    np.testing.assert_allclose(result, torch.softmax(scores, -1)[0].numpy(), rtol=1e-5, atol=1e-9)


def test_what_is_drawn_follows_the_softmax_by_a_chi_square_test():
    config = GenerationConfig(do_sample=True, temperature=1.3, top_k=0)
    logits = np.random.default_rng(1).normal(size=60).astype(np.float32)
    prob = np.exp(logits.astype(np.float64) / 1.3)
    random, n = np.random.default_rng(2), 30_000
    counts = np.bincount([draw(logits, config, random) for _ in range(n)], minlength=60)
    assert chisquare(counts, n * prob / prob.sum()).pvalue > 0.01
    assert chisquare(counts, n * np.full(60, 1 / 60)).pvalue < 1e-6  # the test can fail


def test_first_tokens_of_many_samples_follow_the_models_softmax():
    ours, peer = models(GRID[0])
    prompt, n = prompts(GRID[0], 1, length=9)[0], 3000
    config = GenerationConfig(do_sample=True, top_k=0, num_return_sequences=n)
    counts = np.bincount([new[0] for new in ours.generate([prompt], 1, config)], minlength=61)
    with torch.no_grad():
        prob = torch.softmax(peer(torch.tensor([prompt])).logits[0, -1].double(), -1).numpy()
    often = prob * n > 5  # the others together are one class
    observed, expected = ([*x[often], x[~often].sum()] for x in (counts, prob * n))
    assert chisquare(observed, expected).pvalue > 0.01


def test_samples_are_repeated_from_a_seed_and_do_not_depend_on_the_batch():
    ours, few = models(GRID[0])[0], prompts(GRID[0], 7)
    config = GenerationConfig(do_sample=True, num_return_sequences=3, seed=5)
    result = ours.generate(few, 12, config)
    assert result == ours.generate(few, 12, config)
    assert result[:3] == ours.generate(few[:1], 12, config)
    assert result != ours.generate(few, 12, GenerationConfig(do_sample=True, num_return_sequences=3, seed=6))
    assert len({tuple(new) for new in result}) == len(result) == 21


def test_every_token_is_told_when_it_comes():
    noted: list[tuple[int, int]] = []
    config = GenerationConfig(do_sample=True, num_return_sequences=2)
    few = prompts(GRID[0], 3)
    result = models(GRID[0])[0].generate(few, [4, 9, 0], config, on_token=lambda i, token: noted.append((i, token)))
    assert [[token for i, token in noted if i == n] for n in range(6)] == result
    assert [len(new) for new in result] == [4, 4, 9, 9, 0, 0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": 0.0}, "temperature: must be greater than 0, not 0.0; write a positive number"),
        ({"top_k": -1}, "top_k: must be at least 0, not -1; write 0 or more"),
        ({"top_p": 1.2}, "top_p: must be at most 1, not 1.2; write a smaller number"),
        ({"num_beams": 0}, "num_beams: must be at least 1, not 0; write 1 or more"),
        ({"num_return_sequences": 2},
         "num_return_sequences: greedy decoding gives one sequence; sample, or search with num_beams"),
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences: is 3; 2 beams give no more"),
        ({"num_beams": 2, "do_sample": True},
         "num_beams: beam search draws no samples; leave out do_sample, or num_beams"),
        ({"early_stopping": "always"}, "early_stopping: is always; write true, false or never"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: must be greater than 0, not 0.0; write a positive number"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError) as caught:
        GenerationConfig(**options)
    assert str(caught.value) == message
