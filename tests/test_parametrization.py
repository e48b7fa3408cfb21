"""Standard and maximal update parametrization of the shipped Cerebras-GPT rows against the published numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cgpt.experiment import load, plan
from cgpt.model.gpt import init_parameters, parameter_shapes
from cgpt.recipe import flops, parametrization
from cgpt.spec import Model

ROOT = Path(__file__).parent.parent
HIDDEN = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

# Standard deviations of residual projections in the published configurations (0.02 everywhere else), and m of muP.
SP_RESIDUAL_STD = {"111m": 0.0044721, "256m": 0.0037796, "590m": 0.0033333, "1.3b": 0.0025, "2.7b": 0.0025,
                   "6.7b": 0.0025, "13b": 0.0025}  # fmt: skip
WIDTH_MULTIPLIER = {"40m": 1, "111m": 3, "256m": 4.25, "590m": 6, "1.3b": 8, "2.7b": 10}

COUNTS = (flops.n_parameters, *flops.CONVENTIONS.values())


@pytest.fixture(scope="module")
def models():
    return load.load_workflow(ROOT).models


def names_of(row: Model) -> list[str]:
    return list(parameter_shapes(replace(row, n_layer=1)))


def is_drawn(name: str) -> bool:
    return name.endswith("weight") and "ln_" not in name


@pytest.mark.parametrize("size", SP_RESIDUAL_STD)
def test_standard_deviations_are_those_of_the_published_configurations(models, size):
    row = models[f"cerebras-gpt-{size}"]
    for name in names_of(row):
        std = SP_RESIDUAL_STD[size] if "c_proj" in name else 0.02
        if is_drawn(name):
            assert parametrization.init_std(row, name) == pytest.approx(std, rel=1e-4), name
        assert parametrization.learning_rate_factor(row, name) == 1
    assert parametrization.embedding_scale(row) == parametrization.logit_scale(row) == 1
    assert parametrization.attention_scale(row, 3) == pytest.approx((row.d_model / row.n_head) ** -0.5)


@pytest.mark.parametrize("size", WIDTH_MULTIPLIER)
def test_mup_deviations_rates_and_multipliers_follow_the_papers_table(models, size):
    row, m = models[f"cerebras-gpt-{size}-mup"], WIDTH_MULTIPLIER[size]
    for name in names_of(row):
        hidden, residual = name.endswith(HIDDEN), "c_proj" in name
        variance = 0.08**2 / (m if hidden else 1) / (2 * row.n_layer if residual else 1)
        if is_drawn(name):
            assert parametrization.init_std(row, name) ** 2 == pytest.approx(variance), name
        assert parametrization.learning_rate_factor(row, name) == pytest.approx(1 / m if hidden else 1), name
    assert parametrization.embedding_scale(row) == 10
    assert parametrization.logit_scale(row) == pytest.approx(1 / m)
    assert parametrization.attention_scale(row, 3) == pytest.approx(row.n_head / row.d_model)


def test_the_deviations_of_the_111m_mup_model_are_the_digits_of_its_published_configuration(models):
    row = models["cerebras-gpt-111m-mup"]
    stds = [round(parametrization.init_std(row, f"transformer.h.0.{name}"), 7) for name in HIDDEN]
    assert stds == [0.0461880, 0.0103280, 0.0461880, 0.0103280]


def test_mup_rows_have_the_shapes_of_their_twins_and_the_40m_has_its_published_size(models):
    for size in set(WIDTH_MULTIPLIER) - {"40m"}:
        sp, mup = models[f"cerebras-gpt-{size}"], models[f"cerebras-gpt-{size}-mup"]
        std = sp.residual_init_std  # the one thing in which a twin may differ
        assert replace(mup, name=sp.name, parametrization="sp", residual_init_std=std) == sp
        assert [count(mup) for count in COUNTS] == [count(sp) for count in COUNTS]
    assert flops.n_parameters(models["cerebras-gpt-40m-mup"]) == 32_344_832


def test_drawn_mup_weights_have_the_deviations_that_the_table_says():
    row = Model("wide", n_layer=2, d_model=64, n_head=2, seq_len=64, vocab_size=300, parametrization="mup",
                mup_base_width=16.0)  # fmt: skip
    cut = 0.8796  # deviation of a standard normal cut at 2
    params = init_parameters(row, 0)
    for name, std in (("wte", 0.08), ("wpe", 0.08), ("h.1.attn.c_attn", 0.04), ("h.1.mlp.c_proj", 0.02)):
        assert params[f"transformer.{name}.weight"].std() == pytest.approx(cut * std, rel=0.03), name


def test_a_wider_feed_forward_layer_counts_for_the_weights_that_sum_over_it():
    row = Model("wide", n_layer=2, d_model=512, n_head=2, seq_len=8, vocab_size=9, d_ffn=4096, parametrization="mup")
    factors = [parametrization.learning_rate_factor(row, f"transformer.h.0.{name}") for name in HIDDEN]
    assert factors == [1 / 2, 1 / 2, 1 / 2, 1 / 4]


def test_a_deviation_that_a_row_names_holds_under_both_parametrizations(models):
    row = replace(models["gpt-tiny"], vocab_size=9, init_std=0.1)
    for kind in ("sp", "mup"):
        assert parametrization.base_init_std(replace(row, parametrization=kind)) == 0.1
    assert parametrization.base_init_std(replace(row, parametrization="mup", init_std=None)) == 0.08


def test_a_plan_resolves_the_deviation_at_each_parametrization(models):
    workflow = load.load_workflow(ROOT)
    experiment = workflow.experiments["smoke"]
    workflow.models["free"] = replace(models["gpt-tiny"], name="free", init_std=None)
    experiment = replace(experiment, models=("free",), vary={"model.parametrization": ["sp", "mup"]})
    runs = plan.make_plan(experiment, workflow).of("pretrain")
    assert {run.spec["model"]["parametrization"]: run.spec["model"]["init_std"] for run in runs} == \
        {"sp": 0.02, "mup": 0.08}  # fmt: skip


META_RUN = """
from pathlib import Path
from cgpt.experiment import load, plan
from dataclasses import replace
from cgpt.host import peak_memory_bytes
workflow = load.load_workflow(Path.cwd())
experiment = replace(workflow.experiments["smoke"], models=("cerebras-gpt-13b",), tasks=())
experiment = replace(experiment, data=replace(experiment.data, tokenizer="gpt2", vocab_size=50257))
(run,) = plan.make_plan(experiment, workflow).of("pretrain")
from cgpt.stages.meter import step_work
calls = step_work(workflow.models["cerebras-gpt-13b"], run.spec["train"] | {"batch_size": 2, "micro_batch_size": 2})
peak_bytes = peak_memory_bytes()
print(run.execution.n_parameters, run.execution.memory_bytes, peak_bytes, len(calls))
"""


@pytest.mark.slow
def test_planning_and_metering_a_13b_model_needs_no_memory_for_its_weights():
    done = subprocess.run([sys.executable, "-c", META_RUN], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    n_parameters, planned_bytes, peak_bytes, n_rows = map(int, done.stdout.split())
    assert n_parameters == 12_853_386_240
    assert planned_bytes > 16 * n_parameters  # what a real run would need
    assert peak_bytes < 2**30 < 4 * n_parameters / 40 and n_rows > 100
