"""The verb forecast: its keys, its units, and the one line it answers a mistake with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgpt.__main__ import main

ROOT = Path(__file__).parent.parent
LLAMA2_7B = "n_layer=32,d_model=4096,d_ffn=11008,gated=true,n_head=32,n_kv_head=32,vocab=32000,seq_len=2048"
LLAMA3_8B = "n_layer=32,d_model=4096,d_ffn=14336,gated=true,n_head=32,n_kv_head=8,vocab=128256,seq_len=4096"
KEYS = {"step_s", "samples_per_s", "tokens_per_s", "utilisation", "energy_j_per_token", "bound_by", "fits",
        "extrapolated"}  # fmt: skip


@pytest.fixture
def refused(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> list[str]:
        assert main(["forecast", *arguments]) == 1
        return capsys.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize(
    "hardware", [path.stem for path in (ROOT / "hardware_profiles").iterdir() if path.stem != "gpu"]
)
def test_every_profile_answers_for_every_cerebras_gpt_that_fits(forecast, hardware):
    for size in ("111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b"):
        found = forecast("--model", f"cerebras-gpt-{size}", "--hardware", hardware, "--tokens", "2e10")
        assert found.keys() >= KEYS | {"days", "energy_kwh"}
        assert found["timing"] == "modeled"
        if found["fits"] is False:
            assert found["step_s"] is None and found["problem"] and found["days"] is None
        else:
            assert found["tokens_per_s"] > 0 and found["days"] > 0


def test_rates_energy_and_days_are_of_one_another(forecast):
    found = forecast(
        "--model", "cerebras-gpt-1.3b", "--hardware", "h100-8", "--batch-per-system", "4", "--tokens", "1e9"
    )
    assert found["samples_per_s"] == pytest.approx(32 / found["step_s"])
    assert found["tokens_per_s"] == pytest.approx(2048 * found["samples_per_s"])
    assert found["energy_j_per_token"] == pytest.approx(8 * 700 / found["tokens_per_s"])
    assert found["days"] == pytest.approx(1e9 / found["tokens_per_s"] / 86400)
    assert found["energy_kwh"] == pytest.approx(1e9 * found["energy_j_per_token"] / 3.6e6)
    peak = 8 * 9.89e14
    n_flops = 6 * (12 * 24 * 2048**2 + 50257 * 2048) + 12 * 24 * 2048 * 2048
    assert found["utilisation"] == pytest.approx(found["tokens_per_s"] * n_flops / peak)


def test_a_job_on_a_wafer_takes_its_overhead_too(forecast):
    found = forecast("--model", "cerebras-gpt-111m", "--hardware", "cs2", "--tokens", "1e6")
    assert found["days"] * 86400 > 2869 + 232  # compilation and programming, rows O05 and O02
    assert found["days"] * 86400 == pytest.approx(1e6 / found["tokens_per_s"] + found["job_overhead_s"])


def test_published_rates_are_met(forecast):
    """T09: GPT-J 6B on one CS-3, batch 120, 44.75 sequences/s; WaferLLM, table 4: 2501.5 tokens/s on 540 x 540."""
    gpt_j = "n_layer=28,d_model=4096,n_head=16,vocab_size=50400,seq_len=2048"
    training = forecast("--shape", gpt_j, "--hardware", "cs3", "--batch-per-system", "120")
    assert training["samples_per_s"] == pytest.approx(44.75, rel=0.1)
    assert training["energy_j_per_token"] == pytest.approx(0.25, rel=0.1)  # 23 kW over the measured rate
    decode = forecast("--shape", LLAMA3_8B, "--hardware", "cs2", "--decode", "--context", "4096", "--grid", "540")
    assert decode["tokens_per_s"] == pytest.approx(2501.5, rel=0.05)
    prefill = forecast("--shape", LLAMA3_8B, "--hardware", "cs2", "--prefill", "--grid", "600")
    assert prefill["tokens_per_s"] == pytest.approx(25037.2, rel=0.12)


def test_a_wafer_takes_more_joules_a_token_of_dense_training_than_an_h100(forecast):
    """What is published says so: 0.25 J/token of GPT-J on a CS-3, 0.066 of MPT-7B on an H100 (GPU power alone)."""
    wafer = forecast("--shape", LLAMA2_7B, "--hardware", "cs3", "--batch-per-system", "128")
    h100 = forecast("--shape", LLAMA2_7B, "--hardware", "h100-8", "--batch-per-system", "4")
    assert wafer["energy_j_per_token"] > 2 * h100["energy_j_per_token"]


def test_more_than_two_systems_are_marked_as_extrapolated(forecast, capsys):
    assert forecast("--model", "cerebras-gpt-13b", "--hardware", "andromeda")["extrapolated"]
    assert not forecast("--model", "cerebras-gpt-6.7b", "--hardware", "cs2", "--systems", "2")["extrapolated"]
    assert main(["forecast", "--model", "cerebras-gpt-13b", "--hardware", "andromeda"]) == 0
    assert "extrapolated" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--model", "cerebras-gpt-13c", "--hardware", "cs2"],
     "--model: there is no model 'cerebras-gpt-13c'; did you mean 'cerebras-gpt-13b'?"),
    (["--model", "cerebras-gpt-13b", "--hardware", "cs4"],
     "--hardware: there is no hardware profile 'cs4'; did you mean 'cs3'?"),
    (["--model", "gpt-2m", "--hardware", "cs2"],
     "workflows/models.yaml: models.gpt-2m: has no vocab_size, and a forecast needs it; write one there, or give the "
     "whole shape with --shape"),
    (["--hardware", "cs2"], "forecast: give exactly one of --model <a row of models.yaml> and --shape n_layer=...,..."),
    (["--shape", LLAMA2_7B + ",dmodel=3", "--hardware", "cs2"],
     "--shape: 'dmodel=3' is not `key=value` with a known key; did you mean 'd_model'?"),
    (["--shape", LLAMA2_7B.replace("=32,", "=x,", 1), "--hardware", "cs2"],
     "--shape: n_layer: must be a whole number of 1 or more, not 'x'; write e.g. n_layer=32"),
    (["--shape", "d_model=4096,n_head=32,vocab=32000,seq_len=2048", "--hardware", "cs2"],
     "--shape: n_layer: is missing; write `n_layer=<a whole number>`"),
    (["--shape", LLAMA2_7B.replace("n_head=32", "n_head=33"), "--hardware", "cs2"],
     "--shape: n_head must divide d_model, and n_kv_head must divide n_head; write e.g. "
     "d_model=4096,n_head=32,n_kv_head=8"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--batch-per-system", "0"],
     "--batch-per-system: must be greater than 0, not 0; write a positive number"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--systems", "200"],
     "--systems: a cluster has at most 192 of these, not 200; write fewer"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--decode", "--grid", "800"],
     "--grid: the wafer is 757 cores wide, not 800; write fewer"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--decode", "--tokens", "10"],
     "--tokens: has no meaning for decode; leave it out"),
    (["--shape", LLAMA2_7B, "--hardware", "a100", "--decode", "--grid", "500"],
     "--grid: a100 is no wafer; leave it out, or take a profile such as cs2"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--sparsity", "1"],
     "--sparsity: must be from 0 up to 1, not 1.0; write a fraction such as 0.75"),
    (["--shape", LLAMA2_7B, "--hardware", "gpu"],
     "hardware_profiles/gpu.yaml: has no `wafer`, no `gpu` and no `sustained_flops_per_s`, and a forecast needs one; "
     "write one, or take another profile"),
    (["--shape", LLAMA2_7B, "--hardware", "cpu", "--systems", "2"],
     "--systems: cpu is one machine, not 2; leave it out"),
])  # fmt: skip
def test_a_mistake_gets_one_line_that_says_what_to_write(refused, arguments, expected):
    assert refused(*arguments) == [expected]


def test_a_row_of_models_has_the_parameters_that_its_checkpoint_has(forecast):
    assert forecast("--model", "cerebras-gpt-111m", "--hardware", "cs2")["n_parameters"] == 111_050_496  # of its card
