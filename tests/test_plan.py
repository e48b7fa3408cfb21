"""The plan: which runs an experiment has, and what does and does not change a run's identity."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import TASK, edit, write_project

from cgpt.__main__ import main
from cgpt.errors import UserError
from cgpt.experiment import load, show_plan
from cgpt.experiment.plan import make_plan
from cgpt.experiment.planned_time import time_plan
from cgpt.experiment.plans import make_plans
from cgpt.experiment.run import Plan

ROOT = Path(__file__).parent.parent
QUICKSTART, TOPIC = "workflows/experiments/quickstart.yaml", "workflows/tasks/topic.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def planned(root: Path, experiment: str = "quickstart") -> Plan:
    workflow = load.load_workflow(root)
    return make_plan(workflow.experiments[experiment], workflow)


def ids(plan: Plan, *stages: str) -> set[str]:
    return {run.id for run in plan.runs if not stages or run.stage in stages}


def names(plan: Plan, stage: str) -> list[str]:
    """Run ids of a stage without their hashes."""
    return [".".join(part.rsplit("-", 1)[0] if "-" in part else part for part in run.id.split("."))
            for run in plan.of(stage)]  # fmt: skip


def test_a_task_is_scored_zero_shot_and_after_fine_tuning_from_each_start(root):
    plan = planned(root)
    assert names(plan, "pretrain") == ["small.world.s0"]
    assert names(plan, "finetune") == ["small.world.s0.topic.pretrained", "small.world.s0.topic.scratch"]
    assert names(plan, "evaluate") == [
        "small.world.s0.topic",
        "small.world.s0.topic.pretrained.topic",
        "small.world.s0.topic.scratch.topic",
    ]
    assert names(plan, "baseline") == ["topic.bag_of_words"]


def test_every_need_is_an_earlier_run_of_the_plan(root):
    seen = set()
    for run in planned(root).runs:
        assert set(run.upstream()) <= seen
        seen.add((run.stage, run.id))


def test_the_published_vocabulary_is_fetched_before_it_is_used(root):
    from cgpt.stages.tokenize import GPT2_DATASET

    path = root / "workflows/experiments/quickstart.yaml"
    path.write_text(re.sub(r"vocab_size: \d+", "vocab_size: 50257, tokenizer: gpt2", path.read_text()))
    with pytest.raises(UserError, match=f"has no '{GPT2_DATASET}', which tokenizer gpt2 needs; add it"):
        planned(root)
    with (root / "workflows/data.yaml").open("a") as file:
        file.write(f"  {GPT2_DATASET}: {{path: notes.txt}}\n")
    plan = planned(root)
    assert ("fetch", GPT2_DATASET) in plan.of("tokenize")[0].upstream()
    assert GPT2_DATASET in ids(plan, "fetch")


def test_fine_tuning_from_scratch_needs_no_pretrained_model(root):
    pretrained, scratch = planned(root).of("finetune")
    assert "pretrain" in pretrained.needs
    assert set(scratch.needs) == {"tokenize", "fetch"}


def test_every_spec_is_plain_json_and_resolved(root):
    for run in planned(root).runs:
        assert json.loads(json.dumps(run.spec)) == run.spec
    spec = planned(root).of("pretrain")[0].spec
    assert spec["model"]["vocab_size"] == 512
    assert spec["model"]["d_ffn"] == 4 * 32
    assert (spec["train"]["steps"], spec["train"]["tokens"]) == (10, 10 * 4 * 16)
    assert "checkpoint_every_steps" not in spec["train"]


def test_tokens_per_parameter_sets_the_steps_rounded_up(root):
    edit(root, QUICKSTART, "steps: 10", "tokens_per_parameter: 20")
    run = planned(root).of("pretrain")[0]
    wanted = 20 * run.execution.n_parameters
    assert wanted <= run.spec["train"]["tokens"] < wanted + 4 * 16


def test_flops_set_the_steps_attention_included(root):
    edit(root, QUICKSTART, "steps: 10", "flops: 1.0e+9")
    run = planned(root).of("pretrain")[0]
    a_step = run.execution.flops / run.spec["train"]["steps"]
    assert 1e9 <= run.execution.flops < 1e9 + a_step


PER_MODEL = """\
models: [small, large]
per_model:
  large: {train: {lr: 0.001}, seeds: [0, 1]}"""


def test_what_is_said_of_one_model_holds_for_it_alone_and_wins(root):
    edit(root, QUICKSTART, "models: [small]", PER_MODEL)
    trained = {(run.spec["model"]["name"], run.spec["train"]["lr"], run.spec["seed"])
             for run in planned(root).of("pretrain")}  # fmt: skip
    assert trained == {("small", 0.003, 0), ("large", 0.001, 0), ("large", 0.001, 1)}


def test_runs_of_schedule_wsd_go_on_from_the_next_shorter_one_of_the_same_seed(root):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [20]}\nmodels:")
    alone = planned(root).of("pretrain")[0]
    edit(root, QUICKSTART, "{train.steps: [20]}", "{train.steps: [40, 10, 20]}\nseeds: [0, 1]")
    runs = sorted(planned(root).of("pretrain"), key=lambda run: (run.spec["seed"], run.spec["train"]["steps"]))
    assert [run.execution.is_shared for run in runs] == [True, True, False] * 2
    assert [run.execution.shares_with for run in runs] == [None, runs[0].id, runs[1].id, None, runs[3].id, runs[4].id]
    assert [run.execution.shorter for run in runs[:3]] == [(), (runs[0].id,), (runs[1].id, runs[0].id)]
    assert runs[1].id == alone.id


def test_runs_whose_warm_up_is_a_share_of_their_length_have_nothing_in_common(root):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [20, 40]}\nmodels:")
    assert {run.execution.shares_with for run in planned(root).of("pretrain")} == {None}


def test_steps_that_runs_share_are_counted_once_and_the_plan_says_what_that_saves(root, capsys, monkeypatch):
    """Of 10, 20 and 40 steps of 64 tokens the last fifth decays: 8 of 20 and 16 of 40 are the shorter run's."""
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20, 40]}\nmodels:")
    plan = planned(root)
    total, a_token = show_plan.totals(plan), plan.of("pretrain")[0].execution.flops / 640
    assert (total["tokens"], total["shared_tokens"]) == ((10 + 12 + 24) * 64, (8 + 16) * 64)
    assert total["flops"] == pytest.approx(a_token * 46 * 64) and total["runs_that_share"] == 2
    assert total["shared_flops"] == pytest.approx(a_token * 24 * 64) and total["wsd_runs_apart"] == 0
    monkeypatch.chdir(root)
    assert main(["plan", "quickstart"]) == 0
    assert "shared: 2 runs go on from a shorter one, which saves 1,536 tokens and " in capsys.readouterr().out


def test_lengths_of_schedule_wsd_that_share_nothing_are_told_of_warmup_tokens(root, capsys, monkeypatch):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, steps: 10")
    monkeypatch.chdir(root)
    assert main(["plan", "quickstart"]) == 0
    assert "shared" not in capsys.readouterr().out
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [20, 40]}\nmodels:")
    assert main(["plan", "quickstart"]) == 0
    assert "not shared: 2 runs of schedule wsd differ in their length alone" in capsys.readouterr().out


def test_a_plan_without_minutes_points_to_the_forecast(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert main(["plan", "quickstart"]) == 0
    printed = capsys.readouterr().out
    assert "`cgpt forecast --model <model> --hardware <profile>" in printed and "family" not in printed
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nsustained_flops_per_s: 1.0e+9")
    assert main(["plan", "quickstart"]) == 0
    assert "forecast" not in capsys.readouterr().out
    monkeypatch.chdir(ROOT)
    assert main(["plan", "cerebras-gpt"]) == 0
    assert ", or `cgpt forecast-family` for the seven Cerebras-GPT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (QUICKSTART, "threads_per_run: 1", "threads_per_run: 2"),
        (QUICKSTART, "Is larger better?", "Is it?"),
        (QUICKSTART, "steps: 10", "steps: 10, checkpoint_every_steps: 7"),
        (QUICKSTART, "models:", "# a comment\nmodels:"),
        ("hardware_profiles/cpu.yaml", "a processor", "another word for it"),
        ("hardware_profiles/cpu.yaml", "threads: 2", "threads: 2, mem_mb: 900"),
        ("workflows/data.yaml", "builtin: world,", "builtin: world, licence: free,"),
    ],
)
def test_what_is_only_execution_changes_no_id(root, name, old, new):
    before = ids(planned(root))
    edit(root, name, old, new)
    assert ids(planned(root)) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "unchanged", "changed"),
    [
        (QUICKSTART, "lr: 0.003", "lr: 0.004", ["fetch", "tokenize", "baseline"], ["pretrain"]),
        (QUICKSTART, "vocab_size: 512", "vocab_size: 600", ["fetch", "baseline"], ["tokenize", "pretrain", "finetune"]),
        (TOPIC, "epochs: 2", "epochs: 3", ["tokenize", "pretrain", "baseline"], ["finetune"]),
        (TOPIC, "sea, land", "sea, hill", ["tokenize", "pretrain"], ["finetune", "baseline", "evaluate"]),
        ("hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nkernels: native", ["tokenize"], ["pretrain"]),
        ("workflows/data.yaml", "builtin: world", "builtin: world, seed: 1", ["fetch"], ["tokenize", "evaluate"]),
    ],
)
def test_what_decides_a_result_changes_its_id_and_those_downstream_only(root, name, old, new, unchanged, changed):
    before = planned(root)
    edit(root, name, old, new)
    after = planned(root)
    for stage in unchanged:
        assert ids(before, stage) == ids(after, stage), stage
    for stage in changed:
        assert ids(before, stage) != ids(after, stage), stage


def test_a_new_lr_leaves_fine_tuning_from_scratch_as_it_is(root):
    before = planned(root).of("finetune")
    edit(root, QUICKSTART, "lr: 0.003", "lr: 0.004")
    after = planned(root).of("finetune")
    assert before[0].id != after[0].id
    assert before[1].id == after[1].id


def test_a_new_task_adds_only_its_own_runs(root):
    before = ids(planned(root))
    (root / "workflows/tasks/mood.yaml").write_text(TASK.replace("task: topic", "task: mood"))
    edit(root, QUICKSTART, "tasks: [topic]", "tasks: [topic, mood]")
    after = planned(root)
    assert before < ids(after)
    assert all("mood" in new for new in ids(after) - before)


def test_shared_steps_are_a_saving_and_no_run_needs_them(root):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20]}\nmodels:")
    assert {stage for run in planned(root).of("pretrain") for stage, _ in run.upstream()} == {"tokenize"}


def test_lengths_of_two_experiments_share_their_steps_too(root):
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    text = (root / QUICKSTART).read_text()
    (root / "workflows/experiments/other.yaml").write_text(text.replace("steps: 10", "steps: 20"))
    short, long = (planned(root, name).of("pretrain")[0].id for name in ("quickstart", "other"))
    runs = make_plans(load.load_workflow(root)).runs
    assert runs["pretrain", long].execution.shorter == (short,) and runs["pretrain", short].execution.is_shared
    assert planned(root, "other").of("pretrain")[0].execution.shares_with is None


def test_the_same_training_has_the_same_id_whatever_its_experiment_varies(root):
    alone = planned(root).of("pretrain")[0]
    text = (root / QUICKSTART).read_text() + "vary: {train.lr: [0.001, 0.003], finetune.batch_size: [32]}\n"
    (root / "workflows/experiments/sweep.yaml").write_text(text)
    swept = {run.spec["train"]["lr"]: run for run in planned(root, "sweep").of("pretrain")}
    assert swept[0.003].id == alone.id != swept[0.001].id
    assert ids(planned(root), "finetune", "evaluate") <= ids(planned(root, "sweep"), "finetune", "evaluate")


def test_an_axis_to_vary_gives_a_run_for_each_value_and_shows_beside_its_id(root, capsys, monkeypatch):
    edit(root, QUICKSTART, "threads_per_run: 1", "vary: {train.lr: [0.001, 0.01], finetune.lr: [0.1, 0.2]}")
    plan = planned(root)
    assert [run.execution.label for run in plan.of("pretrain")] == ["lr=0.001", "lr=0.01"]
    assert {name.rsplit("-", 1)[0] for name in ids(plan, "pretrain")} == {"small.world.s0"}
    monkeypatch.chdir(root)
    assert main(["plan", "quickstart"]) == 0
    assert f"{plan.of('pretrain')[0].id}  lr=0.001 " in capsys.readouterr().out
    assert [run.spec["train"]["lr"] for run in plan.of("pretrain")] == [0.001, 0.01]
    assert {run.spec["finetune"]["lr"] for run in plan.of("finetune")} == {0.1, 0.2}


def test_an_axis_that_a_task_overrules_is_refused(root):
    edit(root, QUICKSTART, "threads_per_run: 1", "vary: {finetune.epochs: [1, 2]}")
    with pytest.raises(UserError, match="vary.finetune.epochs: task 'topic' sets epochs itself, which holds instead"):
        planned(root)


def test_a_point_of_vary_that_contradicts_itself_is_refused(root):
    edit(root, QUICKSTART, "threads_per_run: 1", "vary: {model.n_head: [2, 5]}")
    with pytest.raises(UserError, match=r"quickstart.yaml:7: vary.model.n_head: d_model 32 is not divisible"):
        planned(root)


def test_a_model_or_a_point_of_vary_without_a_length_is_refused(root):
    edit(root, QUICKSTART, "models: [small]", "models: [small]\nper_model: {small: {train: {steps: null}}}")
    with pytest.raises(
        UserError, match=r"quickstart.yaml:4: per_model.small.train.steps: leaves no length; write exactly "
    ):
        planned(root)


@pytest.mark.parametrize(("warmup", "steps"), [(640, 10), (1000, 10), (700, 10)])
def test_a_warm_up_as_long_as_the_run_is_refused(root, warmup, steps):
    edit(root, QUICKSTART, "steps: 10", f"steps: 20, warmup_tokens: {warmup}")
    planned(root)
    edit(root, QUICKSTART, "steps: 20", f"steps: {steps}")
    with pytest.raises(UserError, match=rf"quickstart.yaml:4: train.warmup_tokens: a warm-up of {warmup:,} tokens is "
                       "not below the 640 tokens of small; write fewer, or a warmup_fraction"):  # fmt: skip
        planned(root)


def test_n_labels_gives_a_run_for_each_number_with_its_bag_of_words(root):
    edit(root, TOPIC, "epochs: 2", "epochs: 2, n_labels: [8, 32]")
    plan = planned(root)
    assert [run.spec["n_labels"] for run in plan.of("finetune")] == [8, 32, 8, 32]
    assert [run.spec["n_labels"] for run in plan.of("baseline")] == [8, 32]


def test_experiments_share_runs_and_the_fewest_threads_count(root):
    text = (root / QUICKSTART).read_text()
    (root / "workflows/experiments/other.yaml").write_text(text.replace("threads_per_run: 1", "threads_per_run: 2"))
    assert ids(planned(root)) == ids(planned(root, "other"))
    runs = make_plans(load.load_workflow(root)).runs
    assert {run.execution.threads for run in runs.values()} == {1}


def test_an_unknown_run_id_is_answered_with_the_nearest(root):
    workflow = load.load_workflow(root)
    known = make_plan(workflow.experiments["quickstart"], workflow).of("pretrain")[0].id
    with pytest.raises(UserError, match=f"did you mean '{known}'"):
        make_plans(workflow).find_run("pretrain", known[:-1])


def test_minutes_follow_the_profile_s_measured_rate_and_are_empty_without_it(root):
    assert time_plan(planned(root)).plan.of("pretrain")[0].execution.minutes is None
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nsustained_flops_per_s: 1.0e+9")
    cost = time_plan(planned(root)).plan.of("pretrain")[0].execution
    assert cost.minutes == pytest.approx(cost.flops / (1e9 / 2) / 60)  # one of the profile's two threads


def test_plan_prints_a_table_and_with_json_one_object(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["plan", "quickstart"]) == 0
    assert "9 runs; 640 tokens" in capsys.readouterr().out
    assert main(["plan", "quickstart", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["totals"]["runs"] == len(printed["runs"]) == 9


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_traceback(root):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from cgpt.__main__ import main; main(['plan', 'quickstart'])"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_answers_a_mistake_with_one_line_and_exit_code_1(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["plan", "quickstat"]) == 1
    answered = capsys.readouterr()
    assert answered.out == ""
    assert answered.err == "workflows/experiments: there is no experiment 'quickstat'; did you mean 'quickstart'?\n"


def test_fewer_threads_than_the_plan_names_stop_a_run(root, monkeypatch, capsys):
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 2")
    monkeypatch.chdir(root)
    run = planned(root).of("pretrain")[0]
    assert main(["pretrain", run.id, "--threads", "1"]) == 1
    assert capsys.readouterr().err == (
        f"{run.id}: the plan names 2 threads, 1 granted; run snakemake with --cores 2, "
        "or write `threads_per_run: 1` in the experiment\n"
    )


def test_a_run_without_its_upstream_names_the_command_that_makes_it(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    run = planned(root).of("finetune")[0]
    assert main(["finetune", run.id]) == 1
    assert f"cgpt pretrain {run.needs['pretrain']}" in capsys.readouterr().err
