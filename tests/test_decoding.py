"""Options of written answers, against lm-evaluation-harness's own normalisation."""

from __future__ import annotations

from types import SimpleNamespace

import bigram
import pytest
from test_evaluate import TOKENIZER, requests

from cgpt.errors import UserError
from cgpt.inference.lm_eval_model import Adapter
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.tasks.decoding import LENGTHS, read_options, unsupported, without_effect


def asked(options: dict) -> list[tuple]:
    """Lengths and settings that the adapter asks of `generate` for two prompts with these options."""
    calls = []

    def noted(prompts, n_new, config, stop_ids, stop):
        calls.append((n_new, config))
        return [[] for _ in prompts]

    adapter = Adapter(bigram.make_model(TOKENIZER.get_vocab_size()), TOKENIZER)
    adapter.generator = SimpleNamespace(generate=noted)
    adapter.generate_until(requests(("the film", options), ("a river", options)))
    return calls


@pytest.mark.parametrize("key", LENGTHS)
def test_every_name_of_the_length_gives_that_many_tokens(key):
    assert [n_new for n_new, _ in asked({key: 3})] == [3]


def test_of_several_lengths_the_one_that_lm_eval_takes_counts():
    from lm_eval.models.utils import normalize_gen_kwargs

    options = {key: n for n, key in enumerate(reversed(LENGTHS), 3)}
    while options:
        assert read_options(options).max_new_tokens == normalize_gen_kwargs(options)["max_gen_toks"]
        del options[next(key for key in LENGTHS if key in options)]


def test_without_a_length_half_of_the_window_stays_for_the_prompt_and_more_than_the_window_is_refused():
    assert [n_new for n_new, _ in asked({"until": ["."]})] == [32]
    assert [n_new for n_new, _ in asked({"max_gen_toks": 63})] == [63]
    with pytest.raises(UserError, match="an answer of 64 tokens leaves a model of seq_len 64 no room for the prompt"):
        asked({"max_gen_toks": 64})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, GenerationConfig()),
        ({"do_sample": False, "temperature": 0.0}, GenerationConfig()),
        ({"do_sample": False, "temperature": 1, "top_p": 0.95}, GenerationConfig()),
        ({"temperature": 0.7}, GenerationConfig(do_sample=True, temperature=0.7)),
        ({"do_sample": True, "temperature": 1, "top_k": 5, "top_p": 0.9},
         GenerationConfig(do_sample=True, temperature=1.0, top_k=5, top_p=0.9)),
        ({"num_beams": 5, "length_penalty": 2, "early_stopping": True},
         GenerationConfig(num_beams=5, length_penalty=2.0, early_stopping=True)),
        ({"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
         GenerationConfig(repetition_penalty=1.3, no_repeat_ngram_size=2)),
        ({"do_sample": True, "temperature": 0.5, "seed": 7},
         GenerationConfig(do_sample=True, temperature=0.5, seed=7)),
    ],
)  # fmt: skip
def test_every_setting_that_the_decoder_has_reaches_it(options, expected):
    assert [config for _, config in asked(options | {"max_gen_toks": 4})] == [expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beam": 5}, "num_beam: is nothing that answers are written with here; did you mean 'num_beams'?"),
        ({"max_length": 5}, "max_length: counts the prompt too; write max_gen_toks"),
        ({"num_return_sequences": 5}, "num_return_sequences: one answer is scored; leave it out"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be a whole number of tokens above 0, not 0"),
        ({"max_tokens": "many"}, "max_tokens: must be a whole number of tokens above 0, not 'many'"),
        ({"until": 5}, "until: must be a text or a list of texts, not 5"),
        ({"do_sample": "yes"}, "do_sample: does not fit: 'yes'; write true or false"),
        ({"do_sample": True}, "temperature: is missing or 0, and do_sample needs it"),
        ({"temperature": -1}, "temperature: must be greater than 0, not -1; write a positive number"),
        ({"temperature": 1, "top_p": 2}, "top_p: must be at most 1, not 2; write a smaller number"),
        ({"num_beams": 2, "temperature": 1}, "num_beams: beam search draws no samples"),
        ({"top_k": 2.5}, "top_k: does not fit: 2.5; write a number"),
    ],
)
def test_what_the_decoder_does_not_offer_is_refused_by_name(options, message):
    assert message in "\n".join(f"{key}: {what}" for key, what in unsupported(options))
    with pytest.raises(UserError, match=f"generation_kwargs.{next(iter(unsupported(options)))[0]}"):
        read_options(options)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"max_tokens": 3, "max_gen_toks": 4}, "max_tokens"),
        ({"do_sample": False, "temperature": 0.7}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"length_penalty": 2}, "length_penalty"),
        ({"until": ["", "x"]}, "until"),
    ],
)
def test_an_option_that_another_one_makes_void_is_named(options, key):
    assert [name for name, _ in without_effect(options)] == [key]
    assert not list(unsupported(options))


def test_no_two_chunks_of_prompts_share_their_random_numbers(monkeypatch):
    monkeypatch.setattr("cgpt.inference.lm_eval_model.CONTINUATIONS_PER_CALL", 1)
    seeds = [config.seed for _, config in asked({"temperature": 1, "max_gen_toks": 2})]
    assert seeds == [0, 1]
