"""Parameter and FLOP counts against the numbers that the Cerebras-GPT paper and model card give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cgpt.experiment import load
from cgpt.recipe import flops

# size: exact parameters, tokens, then FLOPs as 6ND, PaLM, Chinchilla and as reported by Cerebras.
PUBLISHED = {
    "111m": (111_050_496, 2_220_933_120, 1.48e18, 1.90e18, 2.40e18, 2.6e18),
    "256m": (255_977_024, 5_119_082_496, 7.86e18, 9.78e18, 1.14e19, 1.3e19),
    "590m": (590_310_912, 11_806_113_792, 4.18e19, 4.98e19, 5.51e19, 6.1e19),
    "1.3b": (1_315_723_264, 26_313_424_896, 2.08e20, 2.40e20, 2.55e20, 2.8e20),
    "2.7b": (2_651_553_280, 53_030_191_104, 8.44e20, 9.50e20, 9.90e20, 1.1e21),
    "6.7b": (6_658_404_352, 133_166_858_240, 5.32e21, 5.75e21, 5.91e21, 6.3e21),
    "13b": (12_853_386_240, 257_066_680_320, 1.98e22, 2.11e22, 2.15e22, 2.3e22),
}


@pytest.fixture(scope="module")
def models():
    return load.load_workflow(Path(__file__).parent.parent).models


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_parameters_of_each_cerebras_gpt_are_exact(models, size):
    assert flops.n_parameters(models[f"cerebras-gpt-{size}"]) == PUBLISHED[size][0]


@pytest.mark.parametrize("size", PUBLISHED)
def test_each_convention_gives_the_published_flops_to_the_digits_printed(models, size):
    _, tokens, *published = PUBLISHED[size]
    for convention, printed, digits in zip(("6nd", "palm", "chinchilla", "cerebras"), published, (3, 3, 3, 2)):
        counted = tokens * flops.flops_per_token(models[f"cerebras-gpt-{size}"], convention)
        assert float(f"{counted:.{digits - 1}e}") == pytest.approx(printed, rel=1e-9), convention


def test_an_untied_head_adds_one_more_embedding(models):
    tied = models["bench-7m"]
    untied = replace(tied, tie_embeddings=False)
    assert flops.n_parameters(untied) - flops.n_parameters(tied) == 8192 * 256


def test_non_embedding_parameters_leave_out_both_embeddings(models):
    row = models["bench-7m"]
    assert flops.n_parameters(row) - flops.n_parameters_non_embedding(row) == (8192 + 256) * 256


def test_an_open_vocabulary_is_not_counted(models):
    with pytest.raises(ValueError, match="vocab_size is not resolved"):
        flops.n_parameters(models["gpt-0.4m"])
