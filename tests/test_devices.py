"""Experiments with modeled machines: what is planned, what the table says, what the figures draw."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import results_fixture as made
from project import edit, write_project
from test_profiles import WAFER
from test_tabulate import change, markdown_tables

from cgpt.csv_columns import KERNEL_COLUMNS
from cgpt.errors import UserError
from cgpt.experiment import load, show_plan
from cgpt.experiment.plan import hardware_identity, make_plan
from cgpt.experiment.planned_time import time_plan
from cgpt.experiment.run import Plan
from cgpt.files.csv_file import write_csv
from cgpt.formats import with_prefix
from cgpt.records import read_loss
from cgpt.report.machines.figures import plot_hardware, step_time_figure, time_to_loss_figure
from cgpt.report.machines.roofline import make_roofline, roofline_figure
from cgpt.report.machines.table import hardware_rows
from cgpt.report.rows import collect
from cgpt.report.tables import tabulate
from cgpt.spec import Model

ROOT = Path(__file__).parent.parent
QUICKSTART, ONE = "workflows/experiments/quickstart.yaml", "hardware_profiles/one.yaml"
INT8 = "base: cpu\nkernels: native\nweights_dtype: int8\n"
GPU = """\
description: a GPU
device: CUDA
timing: modeled
peak_flops_per_s: {float32: 1.0e+14}
"""
# kernel, layer, phase, n_calls, flops, bytes_read, bytes_written; the last one is done beside a wafer
KERNELS = [("linear", 0, "forward", 1, 4e6, 3000, 1000), ("linear", 1, "forward", 1, 4e6, 3000, 1000),
           ("linear_bwd", 0, "backward", 1, 8e6, 5000, 3000), ("embedding", None, "forward", 1, 1e3, 3000, 1000),
           ("adamw", None, "update", 1, 2e3, 4000, 4000)]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a processor, one wafer, sixteen of them, and a modeled GPU."""
    root = write_project(tmp_path)
    for name, text in (("one", WAFER), ("sixteen", "base: one\nsystems: 16\n"), ("gpu", GPU), ("int8", INT8)):
        (root / f"hardware_profiles/{name}.yaml").write_text(text)
    edit(root, QUICKSTART, "batch_size: 4", "batch_size: 16")
    return root


def with_hardware(root: Path, text: str) -> Plan:
    """The plan of quickstart with these lines in it."""
    edit(root, QUICKSTART, "models: [small]", f"models: [small]\n{text}")
    workflow = load.load_workflow(root)
    return make_plan(workflow.experiments["quickstart"], workflow)


def ids(plan: Plan, *stages: str) -> set[str]:
    return {run.id for run in plan.runs if run.stage in stages}


def test_with_weights_from_the_modeled_machines_only_meter_what_was_trained_once(root):
    plan = with_hardware(root, "hardware: [cpu, one, sixteen, gpu]\nweights_from: cpu")
    (pretrain,) = plan.of("pretrain")
    assert {run.needs["pretrain"] for run in plan.of("meter")} == {pretrain.id}
    assert {run.spec["hardware"]["name"] for run in plan.of("meter")} == {"one", "sixteen", "gpu"}
    assert {run.spec["hardware"]["name"] for run in plan.of("evaluate")} == {"cpu"}


def test_a_profile_that_rounds_weights_scores_what_another_one_trains_under_ids_of_its_name(root):
    named = "hardware: [cpu, int8]\nweights_from: cpu"
    plan = with_hardware(root, named)
    edit(root, QUICKSTART, named, "hardware: [cpu]")
    workflow = load.load_workflow(root)
    full = make_plan(workflow.experiments["quickstart"], workflow)
    more = [run for run in plan.runs if run.id not in {other.id for other in full.runs}]
    assert {run.stage for run in more} == {"evaluate"} and len(more) == len(full.of("evaluate"))
    assert {run.spec["hardware"]["weights_dtype"] for run in more} == {"int8"}
    assert all(".int8." in run.id for run in more)
    assert sorted(sorted(run.needs.items()) for run in more) == sorted(
        sorted(run.needs.items()) for run in full.of("evaluate")
    )
    assert "weights_dtype" not in full.of("evaluate")[0].spec["hardware"]
    assert all(run.execution.memory_bytes < full.of("evaluate")[0].execution.memory_bytes for run in more)


def test_without_it_a_modeled_wafer_trains_by_itself_and_is_metered_too(root):
    plan = with_hardware(root, "hardware: [one]")
    (pretrain,), (meter,) = plan.of("pretrain"), plan.of("meter")
    assert pretrain.spec["hardware"]["device"] == "WSE" and meter.needs == {"pretrain": pretrain.id}
    assert len(plan.of("finetune")) == 2 and len(plan.of("evaluate")) == 3


@pytest.mark.parametrize(("hardware", "expected"), [
    ("hardware: [cpu, one]\nweights_from: gpu",
     "5: weights_from: 'gpu' is no profile of `hardware` that trains; write one of cpu"),
    ("hardware: [one]\nweights_from: cpu",
     "5: weights_from: 'cpu' is no profile of `hardware` that trains; write one of them there first"),
    ("hardware: [cpu, int8]",
     "4: hardware: 'int8' rounds weights to int8 and trains none; write `weights_from: <profile>` with one of "
     "`hardware` that trains"),
    ("hardware: [cpu, int8]\nweights_from: int8",
     "5: weights_from: 'int8' is no profile of `hardware` that trains; write one of cpu"),
    ("hardware: [cpu, gpu]",
     "4: hardware: 'gpu' is modeled and computes nothing; write `weights_from: <profile>` with one of `hardware` that "
     "trains"),
])  # fmt: skip
def test_who_trains_must_be_said_where_it_is_not_clear(root, hardware, expected):
    with pytest.raises(UserError) as caught:
        with_hardware(root, hardware)
    assert caught.value.problems == (f"{QUICKSTART}:{expected}",)


@pytest.mark.parametrize(("weights_from", "line"), [("", 5), ("\nweights_from: cpu", 6)])
def test_a_batch_that_the_systems_do_not_divide_is_refused(root, weights_from, line):
    edit(root, QUICKSTART, "batch_size: 16", "batch_size: 24")
    with pytest.raises(UserError) as caught:
        with_hardware(root, f"hardware: [cpu, sixteen]{weights_from}")
    assert caught.value.problems == (
        f"{QUICKSTART}:{line}: train.batch_size: 24 sequences cannot be shared evenly by the 16 systems of hardware "
        "profile 'sixteen'; write a multiple of 16",
    )


def test_a_constant_of_the_cost_model_redoes_what_is_modeled_and_nothing_measured(root):
    before = with_hardware(root, "hardware: [cpu, one]\nweights_from: cpu")
    edit(root, ONE, "pass_latency_s: 0.002", "pass_latency_s: 0.003")
    workflow = load.load_workflow(root)
    after = make_plan(workflow.experiments["quickstart"], workflow)
    assert ids(before, "pretrain", "finetune", "evaluate") == ids(after, "pretrain", "finetune", "evaluate")
    assert not ids(before, "meter") & ids(after, "meter")


def test_the_plan_names_modeled_machines_and_counts_neither_tokens_nor_minutes_of_theirs(root):
    plan = with_hardware(root, "hardware: [cpu, one, sixteen]\nweights_from: cpu")
    experiment = load.load_workflow(root).experiments["quickstart"]
    text = show_plan.as_text(experiment, time_plan(plan))
    assert "modeled: one (extrapolated), sixteen (16 systems, extrapolated), with the weights of cpu" in text
    (pretrain,) = plan.of("pretrain")
    alone = Plan(plan.experiment, tuple(run for run in plan.runs if run.stage != "meter"))
    for key in ("tokens", "flops", "minutes", "runs_without_minutes", "memory_bytes"):
        assert show_plan.totals(plan)[key] == show_plan.totals(alone)[key], key
    assert pretrain.execution.tokens == 10 * 16 * 16


@pytest.fixture
def results(tmp_path):
    """Two seeds of three models that the processor trained, on a wafer and on sixteen that they do not fit."""
    experiment, plan = made.make_results(tmp_path)
    plan = made.add_metered(tmp_path, plan, "cs2")
    plan = made.add_metered(tmp_path, plan, "andromeda", systems=16, extrapolated=True, in_memory=False, energy_j=None)
    tabulate(experiment, plan, tmp_path)
    return experiment, plan, tmp_path


def machines(folder: Path) -> list[dict[str, str]]:
    return next(table for table in markdown_tables(folder / "table.md") if "step time (s)" in table[0])


def test_each_seed_has_a_row_on_each_machine_and_nothing_is_averaged(results):
    experiment, _, folder = results
    lines = machines(folder / experiment.name)
    assert len(lines) == 3 * 2 * 3
    assert [(line["hardware"].split(" ")[0], line["seed"]) for line in lines[:6]] == [
        (name, seed) for seed in "01" for name in ("cpu", "andromeda", "cs2")]  # fmt: skip
    with open(folder / experiment.name / "hardware.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["run"] for row in rows}) == len(rows) == len(lines)


def test_modeled_cells_carry_a_mark_and_measured_ones_none(results):
    experiment, _, folder = results
    times = ("step time (s)", "tokens per second", "utilisation (% of the dense peak)", "energy per token (J)",
             "time to train (s)", "energy to train (kJ)")  # fmt: skip
    for line in machines(folder / experiment.name):
        modeled = not line["hardware"].startswith("cpu")
        assert line["seconds"] == ("modeled (weights of cpu)" if modeled else "measured")
        assert all(line[key] == "" or line[key].startswith("~") == modeled for key in times), line
    cpu, wafers, wafer = machines(folder / experiment.name)[:3]
    step_s = 20 * made.SIZES["gpt-90k"] / 20 / 12345.6  # tokens a step over the measured speed
    assert (cpu["step time (s)"], cpu["time to train (s)"]) == (f"{step_s:.3g}", "61.5")
    assert (wafer["step time (s)"], wafer["time to train (s)"]) == ("~0.0144", "~3,110")
    assert cpu["energy to train (kJ)"] == wafers["energy to train (kJ)"] == ""
    assert cpu["validation loss (nats per token)"] == wafer["validation loss (nats per token)"]


def test_systems_extrapolation_and_what_does_not_fit_are_said(results):
    experiment, _, folder = results
    names = {line["hardware"] for line in machines(folder / experiment.name)}
    assert names == {"cpu", "cs2", "andromeda (16 systems, does not fit in memory, extrapolated)"}
    text = (folder / experiment.name / "table.md").read_text()
    for fact in ("**~**: computed by a model", "**weights of**: the machine", "**extrapolated**: no absolute rate"):
        assert fact in text


def test_what_trained_on_a_modeled_machine_has_one_row_that_is_marked(tmp_path):
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for run in plan.of("pretrain"):
        change(tmp_path / "runs/pretrain" / run.id / "run.json", hardware="cs2", timing="modeled")
    plan = made.add_metered(tmp_path, plan, "cs2")
    tabulate(experiment, plan, tmp_path)
    lines = machines(tmp_path / experiment.name)
    assert [line["seconds"] for line in lines] == ["modeled"] * 3
    assert {line["step time (s)"] for line in lines} == {"~0.0144"}


def test_loss_is_drawn_against_tokens_over_speed_dashed_where_it_is_modeled(results):
    experiment, plan, folder = results
    rows = hardware_rows(collect(experiment, plan, folder))
    curves = {run.id: read_loss(folder / "runs/pretrain" / run.id / "loss.csv") for run in plan.of("pretrain")}
    figure = time_to_loss_figure(rows, curves)
    time, energy = figure.axes[0], figure.axes[3]
    tokens = [step * made.SIZES["gpt-90k"] for step in (5, 10, 15, 20)]
    assert list(time.lines[0].get_xdata()) == pytest.approx([n / 12345.6 for n in tokens])
    assert list(time.lines[2].get_xdata()) == pytest.approx([n / 142247 for n in tokens])
    assert [line.get_linestyle() == "-" for line in time.lines] == [True, False, False] * 2
    assert list(energy.lines[0].get_xdata()) == pytest.approx([n * 0.16 for n in tokens])
    assert len(energy.lines) == 4  # of the processor's energy nothing is known
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "cpu, measured, energy not known", "~andromeda, modeled, extrapolated; a job takes 52 min more",
        "~cs2, modeled; a job takes 52 min more"]  # fmt: skip


def test_a_step_is_drawn_in_shares_with_its_time_beside_it(results):
    experiment, plan, folder = results
    figure = step_time_figure(hardware_rows(collect(experiment, plan, folder)))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [f"{90112 / 12345.6:.3g} s", "~14.4 ms", "~14.4 ms"]
    assert sorted(round(bar.get_width()) for bar in axes.patches) == [25, 25, 75, 75, 100]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["compute", "pass latency", "measured as a whole"]  # no step has a reduction


def roofline(hardware: str, systems: int = 1):
    profile = load.load_workflow(ROOT).hardware[hardware]
    model = asdict(Model("gpt-90k", 2, 64, 2, 128, d_ffn=256, vocab_size=512))
    rows = [dict(zip(KERNEL_COLUMNS, row, strict=True)) for row in KERNELS]
    record = {"model": "gpt-90k", "hardware": hardware, "systems": systems, "step_s": 0.01}
    return make_roofline(record, {"model": model, "hardware": hardware_identity(profile)}, rows), profile


def test_kernels_lie_on_the_roof_at_their_flops_per_byte_of_the_machines_precision():
    machine, profile = roofline("cs2")
    halves = 0.5  # of the bytes: 16 bits on the wafer, 32 where the kernels are metered
    assert machine.kernels == pytest.approx({
        ("linear", "forward"): 8e6 / (8000 * halves), ("linear", "backward"): 8e6 / (8000 * halves),
        ("embedding", "forward"): 1e3 / (4000 * halves)})  # fmt: skip
    axes = roofline_figure([machine]).axes[0]
    points = [line for line in axes.lines if line.get_marker() in "osD" and line.get_fillstyle() == "full"]
    for line in points:
        x, y = (float(values[0]) for values in line.get_data())
        assert y == pytest.approx(min(7.5e15, x * profile.bandwidth_bytes_per_s))
    assert len(points) == 3
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert float(star.get_ydata()[0]) == pytest.approx((16e6 + 1e3) / 0.01)


def test_blocks_lie_on_the_stream_of_weights_at_their_flops_per_byte_that_comes_in():
    one, profile = roofline("cs2")
    sixteen, _ = roofline("andromeda", systems=16)
    pass_bytes = 2 * 2 * 12 * 64**2  # two layers of 12 d^2 weights in 16 bits
    assert one.streamed == pytest.approx({"forward": 8e6 / pass_bytes, "backward": 8e6 / pass_bytes})
    assert sixteen.streamed == pytest.approx({phase: value / 16 for phase, value in one.streamed.items()})
    hollow = [line for line in roofline_figure([one]).axes[0].lines if line.get_fillstyle() == "none"]
    for line in hollow:
        x, y = (float(values[0]) for values in line.get_data())
        assert y == pytest.approx(x * profile.wafer.io_bytes_per_s)
    assert len(hollow) == 2


def test_a_gpu_has_one_roof_and_updates_in_32_bits():
    machine, _ = roofline("a100")
    assert machine.kernels["adamw", "update"] == pytest.approx(2e3 / 8000)
    assert machine.streamed == {} and machine.stream_bytes_per_s is None


def test_each_figure_is_written_twice_and_the_same_files_give_the_same_bytes(tmp_path):
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    profile = load.load_workflow(ROOT).hardware["cs2"]
    model = asdict(Model("gpt-1m", 2, 64, 2, 128, d_ffn=256, vocab_size=512))
    plan = made.add_metered(tmp_path, plan, "cs2", {"model": model, "hardware": hardware_identity(profile)})
    rows = [dict(zip(KERNEL_COLUMNS, row, strict=True)) for row in KERNELS]
    for run in plan.of("meter"):
        write_csv(tmp_path / "runs/meter" / run.id / "kernels.csv", KERNEL_COLUMNS, rows)
    written = []
    for _ in range(2):
        plot_hardware(experiment, plan, tmp_path)
        written.append({path.name: path.read_bytes() for path in (tmp_path / "made-up/figures").iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {f"{name}.{kind}" for name in ("time_to_loss", "step_time", "roofline")
                               for kind in ("svg", "png")}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [(0.0144, "14.4 ms"), (7.5e15, "7.5 Ps"), (5.53e-4, "553 µs")])
def test_units_get_the_prefix_that_leaves_few_digits(value, text):
    assert with_prefix(value, "s") == text


def test_a_meter_record_without_a_key_is_refused(results):
    experiment, plan, folder = results
    path = folder / "runs/meter" / plan.of("meter")[0].id / "run.json"
    change(path, step_s=...)
    with pytest.raises(UserError, match="step_s: is missing; every result has this key"):
        tabulate(experiment, plan, folder)
    assert json.loads(path.read_text())["stage"] == "meter"
