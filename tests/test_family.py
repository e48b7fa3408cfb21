"""The Cerebras-GPT family by forecast: the paper's own runs on each profile; the committed table is what comes out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_forecast import WITHOUT_RATE

from cgpt.cost import cerebras_gpt, gpu, wafer_training
from cgpt.cost.shapes import of_model
from cgpt.errors import UserError
from cgpt.experiment.load import load_workflow
from cgpt.recipe import flops
from cgpt.report.machines.cerebras_gpt import write

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results/reference"
WORKFLOW = load_workflow(ROOT)
STRETCHES = cerebras_gpt.read(REFERENCE / "cerebras_gpt_runs.csv")
ROWS = cerebras_gpt.forecast_family(STRETCHES, WORKFLOW.models, WORKFLOW.hardware)


def row(size: str, hardware: str) -> dict:
    (matching,) = [r for r in ROWS if (r["model"], r["hardware"]) == (f"cerebras-gpt-{size}", hardware)]
    return matching


def test_the_runs_are_the_papers_twenty_tokens_a_parameter_on_one_to_sixteen_systems():
    """Tokens: Dey et al. 2023, 20 per parameter; systems: table 6, 1 1 1 4 4 16 12."""
    rows = [row(size, "cs2") for size in ("111m", "256m", "590m", "1.3b", "2.7b", "6.7b", "13b")]
    assert [r["systems"] for r in rows] == [1, 1, 1, 4, 4, 16, 12]
    for r in rows:
        assert r["tokens"] / flops.n_parameters(WORKFLOW.models[r["model"]]) == pytest.approx(20, abs=0.01)
    assert row("13b", "cs2")["tokens"] == 257_066_680_320
    assert all(stretch.source and stretch.batch_size % stretch.systems == 0 for stretch in STRETCHES)


def test_every_size_has_a_row_on_every_profile_that_can_be_forecast():
    answering = set(WORKFLOW.hardware) - WITHOUT_RATE
    assert {(r["model"], r["hardware"]) for r in ROWS} == {(s.model, name) for s in STRETCHES for name in answering}
    assert len(ROWS) == 7 * len(answering)
    assert {r["timing"] for r in ROWS} == {"modeled"}


def test_a_row_is_the_cost_models_step_and_its_steps_with_what_a_job_takes():
    training, shape = row("590m", "cs3"), of_model(WORKFLOW.models["cerebras-gpt-590m"])
    step = wafer_training.training_step(shape, WORKFLOW.hardware["cs3"], 264, 1)
    assert training["step_s"] == pytest.approx(step.step_s)
    assert 3211 < training["seconds"] - 21836 * step.step_s < 3211 + 232 + 100  # compilation, programming, weights
    assert training["energy_j"] == pytest.approx(23_000 * training["seconds"])
    h100, shape = row("6.7b", "h100"), of_model(WORKFLOW.models["cerebras-gpt-6.7b"])
    step = gpu.training_step(shape, WORKFLOW.hardware["h100"], 65, 16)
    assert h100["seconds"] == pytest.approx(62522 * step.step_s)
    assert h100["energy_j_per_token"] == pytest.approx(16 * 700 * step.step_s / (1040 * 2048))


def test_the_13b_is_two_stretches_and_two_jobs():
    training, shape = row("13b", "cs2"), of_model(WORKFLOW.models["cerebras-gpt-13b"])
    steps_s = sum(n * wafer_training.training_step(shape, WORKFLOW.hardware["cs2"], 90, systems).step_s
                  for n, systems in ((57000, 8), (78223, 12)))  # fmt: skip
    assert 2 * 2869 < training["seconds"] - steps_s < 2 * (2869 + 232 + 200 + 1500)
    assert (training["batch_size"], training["batch_per_system"]) == (1080, 90)


def test_a_cluster_uses_as_many_of_its_systems_as_divide_the_batch():
    systems = {size: row(size, "andromeda")["systems"] for size in ("111m", "256m", "1.3b", "6.7b", "13b")}
    assert systems == {"111m": 15, "256m": 12, "1.3b": 16, "6.7b": 16, "13b": 15}
    assert all(r["batch_size"] == r["batch_per_system"] * r["systems"] for r in ROWS)


def test_the_committed_table_is_what_the_command_writes(tmp_path):
    write(ROWS, tmp_path / "again")
    for kind in ("md", "csv"):
        committed = REFERENCE / f"cerebras_gpt_devices.{kind}"
        assert (tmp_path / f"again.{kind}").read_bytes() == committed.read_bytes()


def test_the_table_marks_each_time_and_energy_as_modeled_and_says_what_is_extrapolated():
    lines = [line.split("|") for line in (REFERENCE / "cerebras_gpt_devices.md").read_text().splitlines()
             if line.startswith("| cerebras")]  # fmt: skip
    assert all(cell.strip() == "" or cell.strip().startswith("~") for line in lines for cell in line[4:10])
    with open(REFERENCE / "cerebras_gpt_devices.csv", encoding="utf-8", newline="") as file:
        flags = [line["extrapolated"] for line in csv.DictReader(file)]
    assert [("extrapolated" in line[2]) for line in lines] == [flag == "true" for flag in flags]


def test_a_broken_list_of_runs_is_one_line(tmp_path):
    (tmp_path / "runs.csv").write_text("model,systems\ncerebras-gpt-13b,many\n")
    with pytest.raises(UserError, match="runs.csv: cannot be read"):
        cerebras_gpt.read(tmp_path / "runs.csv")
