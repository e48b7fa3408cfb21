"""The verb forecast: its keys, its units, and the one line it answers a mistake with."""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgpt.__main__ import main, make_parser
from cgpt.cost import shapes
from cgpt.formats import duration, energy
from cgpt.spec import Model

ROOT = Path(__file__).parent.parent
LLAMA2_7B = "n_layer=32,d_model=4096,d_ffn=11008,gated=true,n_head=32,n_kv_head=32,vocab=32000,seq_len=2048"
LLAMA3_8B = "n_layer=32,d_model=4096,d_ffn=14336,gated=true,n_head=32,n_kv_head=8,vocab=128256,seq_len=4096"
KEYS = {"step_s", "samples_per_s", "tokens_per_s", "utilisation", "energy_j_per_token", "bound_by", "in_memory",
        "extrapolated"}  # fmt: skip
WITHOUT_RATE = {"gpu", "cpu-bf16", "cpu-bfloat16", "cpu-int8"}  # the profiles that no forecast can be made for


@pytest.fixture
def refused(capsys, checkout):
    def call(*arguments: str) -> list[str]:
        assert main(["forecast", *arguments]) == 1
        return capsys.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize(
    "hardware", [path.stem for path in (ROOT / "hardware_profiles").iterdir() if path.stem not in WITHOUT_RATE]
)
def test_every_profile_answers_for_every_cerebras_gpt_that_fits(forecast, hardware):
    for size in ("111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b"):
        answer = forecast("--model", f"cerebras-gpt-{size}", "--hardware", hardware, "--tokens", "2e10")
        assert answer.keys() >= KEYS | {"days", "energy_kwh"}
        assert answer["timing"] == "modeled"
        if answer["in_memory"] is False:
            assert answer["step_s"] is None and answer["problem"] and answer["days"] is None
        else:
            assert answer["tokens_per_s"] > 0 and answer["days"] > 0


def test_rates_energy_and_days_are_of_one_another(forecast):
    answer = forecast(
        "--model", "cerebras-gpt-1.3b", "--hardware", "h100-8", "--batch-per-system", "4", "--tokens", "1e9"
    )
    assert answer["samples_per_s"] == pytest.approx(32 / answer["step_s"])
    assert answer["tokens_per_s"] == pytest.approx(2048 * answer["samples_per_s"])
    assert answer["energy_j_per_token"] == pytest.approx(8 * 700 / answer["tokens_per_s"])
    assert answer["days"] == pytest.approx(1e9 / answer["tokens_per_s"] / 86400)
    assert answer["energy_kwh"] == pytest.approx(1e9 * answer["energy_j_per_token"] / 3.6e6)
    peak = 8 * 9.89e14
    n_flops = 6 * (12 * 24 * 2048**2 + 50257 * 2048) + 12 * 24 * 2048 * 2048
    assert answer["utilisation"] == pytest.approx(answer["tokens_per_s"] * n_flops / peak)


def test_a_job_on_a_wafer_takes_its_overhead_too(forecast):
    answer = forecast("--model", "cerebras-gpt-111m", "--hardware", "cs2", "--tokens", "1e6")
    assert answer["days"] * 86400 > 2869 + 232  # compilation and programming, rows O05 and O02
    assert answer["days"] * 86400 == pytest.approx(1e6 / answer["tokens_per_s"] + answer["job_overhead_s"])


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


@pytest.mark.parametrize("task", ["--decode", "--prefill"])
@pytest.mark.parametrize("hardware", ["cs2", "a100"])
def test_inference_at_a_width_that_no_row_measured_is_extrapolated(forecast, hardware, task):
    """The rows are of widths 4096 and 8192; 24,600 tokens a second of a width of 128 had no mark."""
    narrow = "n_layer=4,d_model=128,n_head=4,vocab=4096,seq_len=128"
    extrapolated = [
        forecast("--shape", shape, "--hardware", hardware, task)["extrapolated"] for shape in (narrow, LLAMA3_8B)
    ]
    assert extrapolated == [True, False]


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--model", "cerebras-gpt-13c", "--hardware", "cs2"],
     "--model: there is no model 'cerebras-gpt-13c'; did you mean 'cerebras-gpt-13b'?"),
    (["--model", "cerebras-gpt-13b", "--hardware", "cs4"],
     "--hardware: there is no hardware profile 'cs4'; did you mean 'cs3'?"),
    (["--model", "gpt-2m", "--hardware", "cs2"],
     "workflows/models.yaml: models.gpt-2m: has no vocab_size, and a forecast needs it; write one there, or "
     "--vocab-size"),
    (["--hardware", "cs2"], "forecast: give exactly one of --model <a row of models.yaml> and --shape n_layer=...,..."),
    (["--shape", LLAMA2_7B + ",dmodel=3", "--hardware", "cs2"],
     "--shape: 'dmodel=3' is not `key=value` with a known key; did you mean 'd_model'?"),
    (["--shape", LLAMA2_7B.replace("=32,", "=x,", 1), "--hardware", "cs2"],
     "--shape: n_layer: must be a whole number from 1 to 1,000,000,000, not 'x'; write e.g. n_layer=32"),
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
     "--tokens: has no meaning with --decode; leave it out"),
    (["--shape", LLAMA2_7B, "--hardware", "a100", "--decode", "--grid", "500"],
     "--grid: a100 is no wafer; leave it out, or take a profile such as cs2"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--sparsity", "1"],
     "--sparsity: must be from 0 up to 1, not 1.0; write a fraction such as 0.1"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--sparsity", "nan"],
     "--sparsity: must be from 0 up to 1, not nan; write a fraction such as 0.1"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--systems", "0"],
     "--systems: must be greater than 0, not 0; write a positive number"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--systems", "-1"],
     "--systems: must be greater than 0, not -1; write a positive number"),
    (["--shape", LLAMA2_7B, "--hardware", "h100", "--systems", "1" + 300 * "0"],
     f"--systems: must be at most 1,000,000, not 1{300 * '0'}; write a smaller number"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--tokens", "nan"],
     "--tokens: 'nan' is no number of tokens; write e.g. 300M, 20B or 1.5e9"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--tokens", "-5"],
     "--tokens: '-5' is no number of tokens; write e.g. 300M, 20B or 1.5e9"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--tokens", "1e400"],
     "--tokens: '1e400' must be from 1 to 1e+18; write e.g. 300M, 20B or 1.5e9"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--tokens", "300Q"],
     "--tokens: '300Q' is no number of tokens; write e.g. 300M, 20B or 1.5e9"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--vocab-size", "100"],
     "--vocab-size: stands beside --shape, which says it; leave it out"),
    (["--shape", LLAMA2_7B + ",n_layer=3", "--hardware", "cs2"], "--shape: n_layer: stands there twice; write it once"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "cs2"], "--hardware: cs2 is named twice; remove one of the two"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "h100", "--sparsity", "0.5"],
     "--sparsity: h100 is no wafer; leave it out, or take a profile such as cs2"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--budget-hours", "0"],
     "--budget-hours: has no meaning without --target-loss; write that too, or leave it out"),
    (["--shape", LLAMA2_7B, "--hardware", "cs2", "--law", "x"],
     "--law: has no meaning without --target-loss; write that too, or leave it out"),
    (["--hardware", "cs2", "--target-loss", "2.5", "--sparsity", "0.5"],
     "--sparsity: has no meaning with --target-loss, which finds it; leave it out"),
    (["--hardware", "cs2", "--target-loss", "2.5", "--budget-hours", "0"],
     "--budget-hours: must be greater than 0, not 0.0; write a positive number"),
    (["--hardware", "cs2", "--target-loss", "2.5", "--systems", "0"],
     "--systems: has no meaning with --target-loss, which finds it; leave it out"),
    (["--shape", LLAMA2_7B, "--hardware", "gpu"],
     "hardware_profiles/gpu.yaml: has no `wafer`, no `gpu` and no `sustained_flops_per_s`, and a forecast needs one; "
     "write one, or take another profile"),
    (["--shape", LLAMA2_7B, "--hardware", "cpu", "--systems", "2"],
     "--systems: cpu is one machine, not 2; leave it out"),
    (["--model", "bench-2m", "--shape", "", "--hardware", "cs2"],
     "forecast: give exactly one of --model <a row of models.yaml> and --shape n_layer=...,..."),
    (["--model", "bench-2m", "--hardware", "cs2", "--decode", "--context", "129"],
     "--context: 129 is more than the 128 positions that bench-2m has; write fewer"),
    (["--model", "bench-2m", "--hardware", "h100", "--sparsity", "0"],
     "--sparsity: h100 is no wafer; leave it out, or take a profile such as cs2"),
])  # fmt: skip
def test_a_mistake_gets_one_line_that_says_what_to_write(refused, arguments, expected):
    assert refused(*arguments) == [expected]


# A value of each flag of `forecast` that differs from every default.
VALUES = {
    "--model": ["cerebras-gpt-256m"], "--shape": [LLAMA2_7B], "--hardware": ["cs3"], "--systems": ["2"],
    "--batch-per-system": ["7"], "--tokens": ["3M"], "--sparsity": ["0.5"], "--decode": [], "--prefill": [],
    "--context": ["100"], "--grid": ["500"], "--target-loss": ["2.8"], "--budget-hours": ["3"], "--budget-kwh": ["3"],
    "--law": ["results/reference/isoflop/fits.json"], "--series": ["Chinchilla"], "--vocab-size": ["1000"],
}  # fmt: skip
ASKED = [
    *(("--model", "cerebras-gpt-111m", "--hardware", *hardware, *task) for hardware in (["cs2"], ["h100"], ["cpu"],
      ["cs2", "h100"]) for task in ([], ["--tokens", "5M"], ["--decode"], ["--prefill"])),
    ("--shape", LLAMA3_8B, "--hardware", "cs2"), ("--model", "gpt-2m", "--vocab-size", "512", "--hardware", "a100"),
    ("--target-loss", "2.9", "--hardware", "cs2"), ("--target-loss", "2.9", "--hardware", "cpu", "h100-8"),
    ("--target-loss", "2.9", "--hardware", "cs2", "--budget-hours", "9"),
]  # fmt: skip


def test_every_flag_of_forecast_has_a_value_here():
    (verbs,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    flags = {action.option_strings[-1] for action in verbs.choices["forecast"]._actions}
    assert flags - {"--help", "--json"} == VALUES.keys()


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_every_flag_changes_the_answer_or_is_refused_by_its_name(capsys, checkout, asked):
    def answer(*more: str) -> tuple[int, str, list[str]]:
        try:
            code = main(["forecast", *asked, *more, "--json"])
        except SystemExit as stop:  # argparse's own refusal
            code = stop.code
        output = capsys.readouterr()
        return code, output.out, output.err.splitlines()

    before = answer()
    if before[0]:
        assert asked[-2:] == ("cpu", "--decode")  # whose profile names no bandwidth
        return
    for flag, values in VALUES.items():
        if flag in asked and flag not in ("--tokens", "--target-loss"):
            continue
        code, out, lines = answer(flag, *values)
        if code == 0:
            assert out != before[1], flag
        else:
            assert out == "" and flag in lines[-1], (flag, lines)


def test_several_profiles_make_one_table_of_steps_start_up_energy_and_price(capsys, forecast):
    asked = ("--model", "cerebras-gpt-13b", "--tokens", "20B", "--hardware")
    assert main(["forecast", *asked, "cs2", "h100", "h100-8", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cerebras-gpt-13b (12.9 B parameters), training on 20.0 B tokens: 4 profiles; modeled"
    head, *rows = (re.split(r"  +", line) for line in lines[2:7])
    assert head == ["hardware", "systems", "batch", "a step", "tokens/s", "time of steps", "start-up", "energy",
                    "price"]  # fmt: skip
    assert [row[0] for row in rows] == ["cs2", "h100", "h100-8", "cpu"]
    assert rows[1][1:] == ["1", "1,080", "does not fit"]  # nothing is known of it but that
    assert all(cell.startswith("~") for row in rows for cell in row[3:] if "t" not in cell[:1] and cell[0] not in "de")
    assert len(rows[0]) == 9 and rows[0][-1] == "extrapolated"  # no price of a CS-2 is public
    answer = forecast(*asked, "cs2", "h100-8")["profiles"]
    assert answer == [forecast(*asked, "cs2"), forecast(*asked, "h100-8")]
    assert answer[0]["days"] * 86400 == pytest.approx(answer[0]["steps_s"] + answer[0]["job_overhead_s"])
    assert answer[1]["energy_kwh"] == pytest.approx(8 * 0.7 * answer[1]["days"] * 24)
    assert answer[1]["price_usd"] == pytest.approx(8 * 4.916 * answer[1]["days"] * 24)


def test_the_batch_is_the_models_own_and_not_what_the_memory_holds(forecast):
    """Published: 120 sequences of 111M, 1,040 of 6.7B and 1,080 of most of 13B (cerebras_gpt_runs.csv)."""
    for size, n_sequences, hardware in (("111m", 120, "cs2"), ("111m", 120, "h100-8"), ("13b", 1080, "h100-8"),
                                        ("6.7b", 1040, "cs3"), ("590m-mup", 264, "a100")):  # fmt: skip
        answer = forecast("--model", f"cerebras-gpt-{size}", "--hardware", hardware)
        assert answer["batch_sequences"] == n_sequences == answer["batch_per_system"] * answer["systems"]
        assert answer["batch_source"] == "as published"


def test_the_batch_of_another_model_is_on_the_line_through_the_published_ones(forecast):
    with open(ROOT / "results/reference/cerebras_gpt_runs.csv", encoding="utf-8", newline="") as file:
        runs = [(int(run["batch_size"]) * 2048, int(run["batch_size"]) * 2048 * int(run["steps"]))
                for run in csv.DictReader(file) if run["model"] != "cerebras-gpt-13b"]  # fmt: skip
    exponent, level = np.polyfit(np.log([tokens for _, tokens in runs]), np.log([batch for batch, _ in runs]), 1)
    answer = forecast("--shape", LLAMA2_7B, "--hardware", "cs3", "--tokens", "1e11")
    assert answer["batch_sequences"] * 2048 == pytest.approx(np.exp(level + exponent * np.log(1e11)), rel=0.15)
    assert "by the law" in answer["batch_source"]


@pytest.mark.parametrize(("text", "tokens"), [("300M", 3e8), ("20B", 2e10), ("1.5e9", 1.5e9), ("2_000", 2e3),
                                              ("1.5t", 1.5e12), ("7k", 7e3), ("1e3M", 1e9), ("42", 42)])  # fmt: skip
def test_tokens_are_read_as_people_write_them(forecast, text, tokens):
    answer = forecast("--model", "cerebras-gpt-111m", "--hardware", "cs2", "--tokens", text)
    assert answer["tokens"] == pytest.approx(tokens)


@pytest.mark.parametrize(("seconds", "text"), [(3e-7, "0.3 us"), (0.0123, "12.3 ms"), (1.234, "1.23 s"),
    (119, "119 s"), (125, "2.08 minutes"), (7000, "117 minutes"), (7300, "2.03 hours"), (172_000, "47.8 hours"),
    (1e6, "11.6 days"), (6e7, "694 days"), (6.4e7, "2.03 years"), (1e12, "31,700 years")])  # fmt: skip
def test_times_are_in_units_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("kwh", "text"), [(0.0005, "0.5 Wh"), (0.25, "250 Wh"), (3.456, "3.46 kWh"),
    (999, "999 kWh"), (1234, "1.23 MWh"), (5.67e6, "5.67 GWh")])  # fmt: skip
def test_energies_are_in_units_for_people(kwh, text):
    assert energy(kwh) == text


def test_a_vocabulary_of_ones_own_is_in_parameters_and_products(forecast):
    answer = forecast("--model", "gpt-2m", "--vocab-size", "8192", "--hardware", "cs2", "--batch-per-system", "8")
    n = 8192 * 128 + 256 * 128 + 4 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert (answer["n_parameters"], answer["vocab_size"]) == (n, 8192)
    products = 6 * (8192 * 128 + 4 * 12 * 128**2) + 12 * 4 * 256 * 128
    assert answer["model_flops"] == products * 8 * 256


# The cards' counts of models whose head is their embedding, which no count may have twice.
TIED = {"cerebras-gpt-111m": 111_050_496, "cerebras-gpt-256m": 255_977_024, "cerebras-gpt-13b": 12_853_386_240}


@pytest.mark.parametrize("model", TIED)
def test_a_tied_model_holds_its_head_once_on_every_machine(forecast, model):
    n = TIED[model]
    wafer = forecast("--model", model, "--hardware", "cs2")
    assert wafer["n_parameters"] == n and wafer["memory_bytes"]["host_weights_and_optimizer"] == 16 * n
    gpu = forecast("--model", model, "--hardware", "h100-8", "--systems", "16")
    assert gpu["memory_bytes"]["weights_and_optimizer"] == n  # 16 bytes a weight over 16 GPUs
    decode = forecast("--model", model, "--hardware", "cs3", "--systems", "2", "--decode")
    assert decode["memory_bytes"]["weights"] == 2 * n / 2  # 16 bits, over 2 wafers
    with_tokens = forecast("--model", model, "--hardware", "cs2", "--tokens", "1M")
    assert with_tokens["job_overhead_s"] == pytest.approx(2869 + 232 + 12 * n / 9.3e8 + 12 * n / 1.1e8)


def test_gpt2_small_has_124_million_parameters_tied_and_a_head_more_untied(forecast):
    shape = "n_layer=12,d_model=768,n_head=12,vocab=50257,seq_len=1024"
    tied, untied = (forecast("--shape", f"{shape},tied={tied}", "--hardware", "a100")["n_parameters"]
                    for tied in ("true", "false"))  # fmt: skip
    assert untied - tied == 50257 * 768
    assert tied == pytest.approx(124_439_808, rel=0.01)  # of its card, with positions, biases and norms
    row = Model("gpt2", n_layer=12, d_model=768, n_head=12, seq_len=1024, vocab_size=50257)
    assert shapes.of_model(row).n_parameters == 124_439_808
    assert shapes.of_model(replace(row, tie_embeddings=False)).n_parameters == 124_439_808 + 50257 * 768
