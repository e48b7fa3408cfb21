"""Loss against seconds, joules and US dollars on each machine: laws that the runs were made of come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from project import MODELS, edit, write_project
from test_fit import QUICKSTART, SIZES
from test_profiles import WAFER
from test_tabulate import markdown_tables

from cgpt.__main__ import main
from cgpt.experiment import load, plan
from cgpt.files.csv_file import write_csv
from cgpt.scaling import cost_law
from cgpt.scaling.machines import HARDWARE_COLUMNS, Machine, read_machines, ways_to
from cgpt.scaling.points import RUN_COLUMNS, read_runs
from cgpt.scaling.statistics import interval

CPU_LAW = {"SP": (300.0, 0.2, 1.25), "muP": (200.0, 0.25, 1.3)}  # C0 in seconds, alpha, E
SLOWER = 4.0  # the wafer's steps take as many times the cpu's seconds
OVERHEAD_S = 3000.0
WATTS, USD_PER_HOUR = 20_000, 36


def write_experiment(root: Path) -> Path:
    """Six sizes in both parametrizations, two seeds each, on a processor and on two wafers that it trains for."""
    write_project(root)
    shape = "n_layer: {}, d_model: {}, n_head: 2, seq_len: 16"
    rows = {name: shape.format(*size) for name, size in SIZES.items()}
    rows |= {f"{name}-mup": row + ", parametrization: mup" for name, row in rows.items()}
    lines = [f"  {name}: {{{row}}}\n" for name, row in rows.items()]
    edit(root, "workflows/models.yaml", MODELS, "models:\n" + "".join(lines))
    edit(root, QUICKSTART, "models: [small]", f"models: [{', '.join(rows)}]\nseeds: [0, 1]\n"
         "hardware: [cpu, wafers]\nweights_from: cpu\nfit: [hardware]")  # fmt: skip
    edit(root, QUICKSTART, "steps: 10", "tokens_per_parameter: 20")
    edit(root, QUICKSTART, "finetune: {start: [pretrained, scratch]}\ntasks: [topic]", "tasks: []")
    wafers = f"{WAFER}systems: 2\npower_w: {WATTS / 2}\nprice_per_hour_usd: {USD_PER_HOUR / 2}\n"
    (root / "hardware_profiles/wafers.yaml").write_text(wafers)
    return root


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_experiment(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """results/quickstart after `fit`, which takes a while."""
    root = write_experiment(tmp_path_factory.mktemp("fitted"))
    write_tables(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["fit", "quickstart"]) == 0
    return root / "results/quickstart"


@pytest.fixture(scope="module")
def series(fitted) -> dict:
    return json.loads((fitted / "fits.json").read_text())["series"]


def write_tables(root: Path, **changes: object) -> None:
    """runs.csv and hardware.csv of the plan: losses that CPU_LAW gives after that many seconds, with 0.01 % of noise.

    `changes`: of the rows of the wafers.
    """
    workflow = load.load_workflow(root)
    planned = plan.make_plan(workflow.experiments["quickstart"], workflow)
    runs, machines = [], []
    for run in planned.of("pretrain"):
        law = CPU_LAW["muP" if run.spec["model"]["parametrization"] == "mup" else "SP"]
        n, tokens, seed = run.execution.n_parameters, run.execution.tokens, run.spec["seed"]
        seconds = 1e-9 * n * tokens
        noise = 1 + 0.0001 * np.random.RandomState([n, seed]).randn()
        loss = float(cost_law.loss_at(np.array(law), np.array([seconds]))[0]) * noise
        shared = {"experiment": "quickstart", "model": run.spec["model"]["name"], "data": "world", "seed": seed,
                  "n_parameters": n, "tokens": tokens, "validation_loss": loss}  # fmt: skip
        measured = shared | {"run": run.id, "hardware": "cpu", "timing": "measured", "tokens_per_s": tokens / seconds}
        runs.append(dict.fromkeys(RUN_COLUMNS) | measured | {"stage": "pretrain", "steps": 10,
                                                             "n_parameters_non_embedding": n // 2})  # fmt: skip
        (meter,) = (each for each in planned.of("meter") if each.needs["pretrain"] == run.id)
        modeled = {"run": meter.id, "hardware": "wafers", "timing": "modeled", "weights_from": "cpu",
                   "extrapolated": True, "tokens_per_s": tokens / seconds / SLOWER, "job_overhead_s": OVERHEAD_S,
                   "in_memory": True}  # fmt: skip
        machines += [dict.fromkeys(HARDWARE_COLUMNS) | row for row in (measured, shared | modeled | changes)]
    write_csv(root / "results/quickstart/runs.csv", RUN_COLUMNS, runs)
    write_csv(root / "results/quickstart/hardware.csv", HARDWARE_COLUMNS, machines)


def machines_of(root: Path) -> dict[str, Machine]:
    """The machines of the series SP."""
    workflow = load.load_workflow(root)
    planned, tables = plan.make_plan(workflow.experiments["quickstart"], workflow), root / "results/quickstart"
    machines = read_machines(tables / "hardware.csv", planned, read_runs(tables / "runs.csv", planned))
    return {machine.hardware: machine for machine in machines["SP"]}


def fit_of(study: dict, hardware: str, cost: str, form: str | None = "offset") -> dict:
    wanted = (hardware, cost, form)
    (matching,) = (fit for fit in study["hardware"] if (fit["hardware"], fit["cost"], fit["form"]) == wanted)
    return matching


def test_each_series_law_comes_back_in_the_seconds_joules_and_dollars_of_each_machine(series):
    assert set(series) == {"SP", "muP"}
    rates = {("cpu", "seconds", "s"): 1.0, ("wafers", "seconds", "s"): SLOWER,
             ("wafers", "joules", "j"): SLOWER * WATTS,
             ("wafers", "usd", "usd"): SLOWER * USD_PER_HOUR / 3600}  # fmt: skip
    for name, (c0_s, alpha, e) in CPU_LAW.items():
        for (hardware, cost, unit), rate in rates.items():
            fit = fit_of(series[name], hardware, cost)
            for constant, value in ((f"c0_{unit}", c0_s * rate), ("alpha", alpha), ("e", e)):
                low, high = fit["constants"][constant]["ends"]
                assert low < value < high, (name, hardware, cost, constant)
                assert fit["constants"][constant]["value"] == pytest.approx(value, rel=0.05)
            assert [held["model"][0] for held in fit["held_out"]] == ["d", "e", "f"]
            assert all(abs(held["error"]) < 0.005 and held[cost] > 0 for held in fit["held_out"])
            assert fit_of(series[name], hardware, cost, "power")["residual_sd"] > fit["residual_sd"]


def test_what_is_modeled_is_marked_and_what_a_job_takes_besides_stands_beside(series, fitted):
    fit = fit_of(series["SP"], "wafers", "joules")
    assert fit["timing"] == "modeled" and fit["extrapolated"] and fit["job_overhead"] == OVERHEAD_S * WATTS
    of_series = [table for table in markdown_tables(fitted / "fits.md") if "a job takes besides" in table[0]]
    table = dict(zip(series, of_series, strict=True))["SP"]
    lines = {(line["machine"].split(" ")[0], line["cost"], line["form"]): line for line in table}
    assert {line["machine"] for line in table} == {"cpu", "wafers (extrapolated)", "wafers"}
    for (machine, _, form), line in lines.items():
        assert line["C0"].startswith("~") == (machine == "wafers") or not form
    assert lines["wafers", "seconds", "offset"]["a job takes besides"] == "~3,000"
    assert lines["cpu", "seconds", "offset"]["a job takes besides"] == ""


def test_a_cost_that_a_profile_does_not_tell_is_empty_with_the_reason(series):
    study = series["SP"]
    for cost, key in (("joules", "power_w"), ("usd", "price_per_hour_usd")):
        fit = fit_of(study, "cpu", cost, None)
        assert fit["problem"] == f"hardware_profiles/cpu.yaml has no {key}" and "constants" not in fit
    assert {(way["hardware"], way["cost"]) for way in study["cheapest"]} == {
        ("cpu", "seconds"), ("wafers", "seconds"), ("wafers", "joules"), ("wafers", "usd")}  # fmt: skip


@pytest.mark.parametrize("changes", [{"tokens_per_s": None}, {"in_memory": False}])
def test_a_machine_that_cannot_train_a_size_has_no_law(root, changes):
    write_tables(root, **changes)
    wafers = machines_of(root)["wafers"]
    assert not wafers.costs and set(wafers.unknown.values()) == {"no time of a step for a, b, c, d, e, f"}


def test_energy_of_a_measured_machine_is_its_nameplate_power_and_counts_as_modeled(root):
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\npower_w: 50")
    write_tables(root)
    cpu = machines_of(root)["cpu"]
    assert (cpu.timing_of("joules"), cpu.timing_of("seconds")) == ("modeled", "measured")
    assert cpu.costs["joules"] == pytest.approx(50 * cpu.costs["seconds"])


def test_three_sizes_decide_no_offset_and_the_power_law_tells_the_cheapest_way(root):
    models = ", ".join([*SIZES, *(f"{name}-mup" for name in SIZES)])
    edit(root, QUICKSTART, f"models: [{models}]", "models: [a, b, c]")
    write_tables(root)
    assert main(["fit", "quickstart"]) == 0
    (study,) = json.loads((root / "results/quickstart/fits.json").read_text())["series"].values()
    assert fit_of(study, "wafers", "usd")["problem"].startswith("settings at 3 different costs cannot decide 3")
    power = fit_of(study, "wafers", "usd", "power")["constants"]
    ways = [way for way in study["cheapest"] if (way["hardware"], way["cost"]) == ("wafers", "usd")]
    assert len(ways) == 3
    for way in ways:
        usd = power["c0_usd"]["value"] * way["loss"] ** (-1 / power["alpha"]["value"])
        assert way["steps"][0] == pytest.approx(usd, rel=1e-4)


def test_the_cheapest_way_is_the_laws_and_counts_the_whole_job(series):
    ways = series["SP"]["cheapest"]
    losses = sorted({way["loss"] for way in ways})
    assert len(losses) == 3
    c0, alpha, e = CPU_LAW["SP"]
    for loss in losses:
        cpu, wafers = (way for way in ways if (way["loss"], way["cost"]) == (loss, "seconds"))
        assert (cpu["hardware"], wafers["hardware"]) == ("cpu", "wafers")
        seconds = c0 * (loss - e) ** (-1 / alpha)
        value, low, high = cpu["steps"]
        assert low < seconds < high and value == pytest.approx(seconds, rel=0.05)
        assert wafers["steps"][0] == pytest.approx(SLOWER * value, rel=0.01)
        assert (cpu["cheapest"], wafers["cheapest"]) == (True, False)


def test_a_job_that_begins_late_is_not_the_cheapest_for_having_the_shortest_steps():
    law = {"form": "offset", "timing": "modeled", "extrapolated": False, "cost": "seconds", "draws": [[1.0, 0.5, 1.0]]}
    constants = {"c0_s": {"value": 1.0}, "alpha": {"value": 0.5}, "e": {"value": 1.0}}
    slow = {"c0_s": {"value": 9.0}, "alpha": {"value": 0.5}, "e": {"value": 1.0}}
    fits = [law | {"hardware": "late", "job_overhead": 100.0, "constants": constants},
            law | {"hardware": "slow", "job_overhead": 0.0, "constants": slow}]  # fmt: skip
    late, prompt = ways_to(1.5, fits)
    assert (late["steps"][0], prompt["steps"][0]) == pytest.approx((4.0, 36.0))
    assert (late["cheapest"], prompt["cheapest"]) == (False, True)
    late, prompt = ways_to(0.9, fits)  # below E
    assert late["steps"][0] == np.inf and not late["cheapest"] and not prompt["cheapest"]


def test_intervals_of_a_cost_hold_the_true_one_nineteen_times_in_twenty():
    truth, seconds = np.array([300.0, 0.2, 1.25]), np.geomspace(0.1, 1000, 9)
    exact, held = cost_law.cost_at(truth, 3.5), []
    for seed in range(60):
        losses = cost_law.loss_at(truth, seconds) * (1 + 0.002 * np.random.RandomState(seed).randn(9))
        law = cost_law.fit_offset(seconds, losses)
        drawn = cost_law.loss_at(law, seconds) * (1 + 0.002 * np.random.RandomState(1000 + seed).randn(400, 9))
        low, high = interval(cost_law.cost_at(cost_law.fit_offset(seconds, drawn), 3.5))
        held.append(low < exact < high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.06)


def test_the_figure_has_a_panel_for_each_cost(fitted):
    svg, png = ((fitted / f"figures/hardware_law.{kind}").read_bytes() for kind in ("svg", "png"))
    assert png[:4] == b"\x89PNG"
    for words in (
        "time of the steps (s)",
        "energy of the steps (J)",
        "price of the steps (USD)",
        "~wafers, extrapolated",
    ):
        assert f"<!-- {words}" in svg.decode()


def test_without_being_asked_no_machine_is_read_and_no_figure_drawn(root):
    edit(root, QUICKSTART, "fit: [hardware]", "fit: [parametric]")
    write_tables(root)
    (root / "results/quickstart/hardware.csv").unlink()
    assert main(["fit", "quickstart"]) == 0
    assert {path.stem for path in (root / "results/quickstart/figures").iterdir()} == {"law"}


@pytest.mark.parametrize(("spoil", "expected"), [
    (lambda path: path.unlink(), "hardware.csv: cannot be read"),
    (lambda path: path.write_text(path.read_text().replace(".s1-", ".s9-")), "is not in the plan"),
    (lambda path: path.write_text("run,model\n"), "has no column"),
])  # fmt: skip
def test_machines_that_cannot_be_read_get_one_line(root, capsys, spoil, expected):
    write_tables(root)
    spoil(root / "results/quickstart/hardware.csv")
    assert main(["fit", "quickstart"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
