"""Values that the workflow's rules take from runs and experiments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from project import edit, write_project

from cgpt.errors import UserError
from cgpt.experiment import load, rule_values
from cgpt.experiment.plans import Plans, make_plans

QUICKSTART = "workflows/experiments/quickstart.yaml"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(write_project(tmp_path))
    return tmp_path


def planned(root: Path) -> Plans:
    return make_plans(load.read_workflow(root))


def test_memory_is_the_profile_s_else_half_as_much_again_as_the_plan_estimates(root):
    (run,) = planned(root).by_experiment["quickstart"].of("pretrain")
    assert rule_values.mem_mb(run) == int(1.5 * run.execution.memory_bytes / 1e6)
    assert rule_values.mem_mb(replace(run, execution=replace(run.execution, memory_bytes=None))) == 1000
    edit(root, "hardware_profiles/cpu.yaml", "threads: 2", "threads: 2, mem_mb: 900")
    (run,) = planned(root).by_experiment["quickstart"].of("pretrain")
    assert rule_values.mem_mb(run) == 900


def test_of_runs_that_share_steps_the_shortest_goes_first_and_others_have_no_priority(root):
    (alone,) = planned(root).by_experiment["quickstart"].of("pretrain")
    assert rule_values.priority(alone) == 0
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20]}\nmodels:")
    short, long = planned(root).by_experiment["quickstart"].of("pretrain")
    assert rule_values.priority(short) > rule_values.priority(long) > 0


def test_an_experiment_has_the_figures_and_laws_that_it_asks_for(root):
    workflow, plan = load.read_workflow(root), planned(root).by_experiment["quickstart"]
    experiment = workflow.experiments["quickstart"]
    files = rule_values.report_files(experiment, plan)
    assert "results/quickstart/table.md" in files and "results/quickstart/figures/loss.svg" in files
    assert not [name for name in files if "vary" in name or "fits" in name or "roofline" in name]
    varied = replace(experiment, vary={"train.lr": [0.1]}, fit=("compute", "hardware"))
    more = {name.rpartition("/")[2] for name in set(rule_values.report_files(varied, plan)) - set(files)}
    assert more == {"vary.svg", "vary.png", "fits.json", "fits.md", "law.svg", "law.png", "hardware_law.svg",
                    "hardware_law.png"}  # fmt: skip


def test_a_broken_experiment_stops_only_those_who_ask_for_its_files(root, capsys):
    text = (root / QUICKSTART).read_text()
    (root / "workflows/experiments/other.yaml").write_text(text.replace("[small]", "[small, tiny]"))
    workflow, plans = load.read_workflow(root), planned(root)
    rule_values.refuse_broken(["-n", "results/quickstart/table.md"], workflow, plans)
    assert "warning: not used here, and left out: workflows/experiments/other.yaml" in capsys.readouterr().err
    with pytest.raises(UserError, match="tiny"):
        rule_values.refuse_broken(["results/other/table.md"], workflow, plans)


def test_names_within_a_pattern_stand_for_themselves_and_no_name_matches_nothing():
    assert rule_values.any_of(["b.1", "a+"]) == r"a\+|b\.1"
    assert rule_values.any_of([]) == "none"
