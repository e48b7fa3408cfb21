"""A plan's minutes: this machine's own rates, what is finished, and the time on several cores."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from project import edit, write_project

from cgpt.__main__ import main
from cgpt.commands import measure as rate
from cgpt.cost import memory
from cgpt.experiment import load, rates
from cgpt.experiment.plan import make_plan
from cgpt.experiment.planned_time import time_plan
from cgpt.experiment.rates import Measured, Rate
from cgpt.experiment.run import Execution, Plan, Run, last_file
from cgpt.host import cpu_model
from cgpt.recipe import flops

QUICKSTART, CPU = "workflows/experiments/quickstart.yaml", "hardware_profiles/cpu.yaml"


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(write_project(tmp_path))
    return tmp_path


def planned() -> Plan:
    workflow = load.load_workflow(Path.cwd())
    return make_plan(workflow.experiments["quickstart"], workflow)


def printed(capsys, *arguments: str) -> str:
    assert main(["plan", "quickstart", *arguments]) == 0
    return capsys.readouterr().out


def finish(run: Run, **record) -> None:
    path = last_file(run.stage, run.id)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))


def measured_here(**changed) -> Rate:
    return Rate(**({"device": "CPU", "kernels": "tinygrad", "dtype": "float32", "threads": 1, "flops_per_token": 1e5,
                    "flops_per_s": 1e9} | changed))  # fmt: skip


def test_minutes_are_at_the_rate_that_was_measured_on_this_machine(root, capsys):
    edit(root, CPU, "device: CPU", "device: CPU\nsustained_flops_per_s: 1.0e+12\nsustained_on: another")
    text = printed(capsys)
    assert "at the rate of another, not measured here; run `cgpt measure --hardware cpu --threads 1`" in text
    rates.keep(Measured((measured_here(),), {"pretrain": 6.0, "evaluate": 9.0}))
    text = printed(capsys)
    assert f"minutes on cpu, 1 thread: at the rate measured on this machine, {cpu_model()}\n" in text
    assert "with the seconds in which each job starts" in text
    (run,) = time_plan(planned()).plan.of("pretrain")
    assert run.execution.minutes == pytest.approx((run.execution.flops / 1e9 + 6.0) / 60)


def test_steps_that_a_run_shares_with_a_shorter_one_take_it_no_minutes(root):
    """Of 10 and 20 steps the last fifth decays, so that 8 of the 20 are the shorter run's."""
    edit(root, QUICKSTART, "steps: 10", "schedule: wsd, warmup_tokens: 64, steps: 10")
    edit(root, QUICKSTART, "models:", "vary: {train.steps: [10, 20]}\nmodels:")
    rates.keep(Measured((measured_here(),)))
    short, long = (run.execution for run in time_plan(planned()).plan.of("pretrain"))
    assert long.minutes == pytest.approx(1.2 * short.minutes) and long.flops == 2 * short.flops


def test_a_rate_with_other_threads_kernels_or_type_is_not_taken(root):
    for changed in ({"threads": 2}, {"kernels": "native"}, {"dtype": "bfloat16"}, {"device": "CUDA"}):
        rates.keep(Measured((measured_here(**changed),)))
        assert time_plan(planned()).plan.of("pretrain")[0].execution.minutes is None


def test_a_profile_of_a_machine_such_as_this_needs_no_measurement(root, capsys):
    edit(root, CPU, "device: CPU", f"device: CPU\nsustained_flops_per_s: 1.0e+9\nsustained_on: '{cpu_model()}'")
    text = printed(capsys)
    assert "cpu, 1 thread: at the rate that its profile names, of a machine such as this" in text
    assert "measure" not in text


def test_the_first_finished_run_of_this_machine_gives_its_rate(root, capsys):
    edit(root, QUICKSTART, "models:", "seeds: [0, 1]\nmodels:")
    first = planned().of("pretrain")[0]
    record = {"timing": "measured", "threads": 1, "flops": first.execution.flops, "tokens": 640, "tokens_per_s": 50.0}
    finish(first, host_cpu="another machine", **record)
    assert time_plan(planned()).plan.of("pretrain")[1].execution.minutes is None
    last_file("pretrain", first.id).write_text(json.dumps({"host_cpu": cpu_model(), **record}))
    assert time_plan(planned()).plan.of("pretrain")[1].execution.minutes == pytest.approx(640 / 50 / 60)
    text = printed(capsys)
    assert "finished: 1 run; what is left, 14 runs, takes about" in text
    assert [line.split()[-3] for line in text.splitlines() if line.startswith("pretrain")] == ["done", "0.2"]
    answer = json.loads(printed(capsys, "--json"))
    assert [run["finished"] for run in answer["runs"] if run["stage"] == "pretrain"] == [True, False]
    assert answer["minutes_left"] < answer["totals"]["minutes"] and answer["finished"] == 1


RATE_OF = """{{"start_s": {{}}, "rates": [{{"device": "CPU", "kernels": "tinygrad", "dtype": "float32", "threads": 1,
"flops_per_token": 1e5, "flops_per_s": {}}}]}}"""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rates": 3, "start_s": {}}', '{"rates": [{}], "start_s": {}}',
                                  '{"rates": [], "start_s": [1]}', RATE_OF.format("0"), RATE_OF.format("-1.0"),
                                  RATE_OF.format("1" + "0" * 400)])  # fmt: skip
def test_a_damaged_file_of_rates_is_as_none(root, text):
    rates.path().write_text(text)
    assert rates.read() == Measured()
    rates.keep(Measured((measured_here(),)))
    assert rates.read().rates == (measured_here(),)


@pytest.mark.parametrize("damage", [{"flops": 0}, {"flops": -1.0}, {"tokens_per_s": float("nan")}, {"tokens": 0},
                                    {"flops": 10**400}, {"flops": "1"}])  # fmt: skip
def test_a_run_whose_record_is_damaged_gives_no_rate(root, damage):
    record = {"host_cpu": cpu_model(), "timing": "measured", "tokens_per_s": 10.0, "flops": 1e6, "tokens": 64,
              "threads": 1}  # fmt: skip
    hardware = load.load_workflow(root).hardware["cpu"]
    (root / "run.json").write_text(json.dumps(record))
    assert rates.of_record(root / "run.json", hardware) is not None
    (root / "run.json").write_text(json.dumps(record | damage))
    assert rates.of_record(root / "run.json", hardware) is None


def test_a_newer_rate_replaces_one_of_the_same_kind_and_no_other():
    rates.keep(Measured((measured_here(), measured_here(threads=2))))
    rates.keep(Measured((measured_here(flops_per_s=3e9),)))
    assert set(rates.read().rates) == {measured_here(threads=2), measured_here(flops_per_s=3e9)}


def test_between_two_measured_sizes_a_rate_is_their_geometric_mean_and_beyond_them_the_nearest(root):
    hardware = load.load_workflow(Path.cwd()).hardware["cpu"]
    known = [measured_here(flops_per_token=1e4, flops_per_s=1e9), measured_here(flops_per_token=1e8, flops_per_s=4e9)]
    assert rates.flops_per_s(known, hardware, 1, 1e6) == pytest.approx(2e9)
    assert rates.flops_per_s(known, hardware, 1, 10) == pytest.approx(1e9)
    assert rates.flops_per_s(known, hardware, 1, 1e12) == pytest.approx(4e9)


def test_fine_tuning_and_scoring_have_minutes_once_their_files_are_there(root):
    rates.keep(Measured((measured_here(),)))
    unread = [run for run in time_plan(planned()).plan.runs if run.stage in ("finetune", "evaluate")]
    assert unread and {run.execution.minutes for run in unread} == {None}
    folder = last_file("fetch", "world").parent
    folder.mkdir(parents=True)
    for name, lines in (("train", 100), ("test", 50)):
        (folder / f"world_sentiment_{name}.jsonl").write_text(lines * ('{"text": "ten chars "}' + 7 * " " + "\n"))
    plan = time_plan(planned()).plan
    per_token = flops.flops_per_token(plan.of("pretrain")[0].execution.model, "palm")
    for run in plan.of("finetune"):  # 30 bytes a line, 10 tokens
        assert run.execution.minutes == pytest.approx(2 * 100 * 10 * per_token / 1e9 / 60)
    for run in plan.of("evaluate"):  # two choices a document, forward alone
        assert run.execution.minutes == pytest.approx(2 * 50 * 10 * per_token / 3 / 1e9 / 60)


def test_fine_tuning_on_a_file_that_is_there_takes_the_memory_of_its_longest_example(root):
    edit(root, "workflows/models.yaml", "seq_len: 16}", "seq_len: 1024}")
    before = time_plan(planned()).plan.of("finetune")[0].execution
    assert before.memory_bytes == memory.finetuning_bytes(before.model, 32, kernels="tinygrad")
    folder = last_file("fetch", "world").parent
    folder.mkdir(parents=True)
    (folder / "world_sentiment_train.jsonl").write_text(5 * "short\n" + 299 * "x" + "\n")  # 100 tokens, padded to 128
    after = time_plan(planned()).plan.of("finetune")[0].execution
    assert after.memory_bytes == memory.finetuning_bytes(before.model, 32, kernels="tinygrad", longest=128)
    assert after.memory_bytes < before.memory_bytes


def test_a_limit_and_a_number_of_labels_bound_the_minutes(root):
    rates.keep(Measured((measured_here(),)))
    folder = last_file("fetch", "world").parent
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        (folder / f"world_sentiment_{name}.jsonl").write_text(100 * "123456789 123456789 123456789\n")
    whole = time_plan(planned()).plan
    edit(
        root, "workflows/tasks/topic.yaml", "finetune: {epochs: 2}", "limit: 20\nfinetune: {epochs: 2, n_labels: [25]}"
    )
    less = time_plan(planned()).plan
    edit(root, "workflows/tasks/topic.yaml", "limit: 20", "sample: 10")
    sampled = time_plan(planned()).plan.of("evaluate")[0].execution.minutes
    assert sampled == pytest.approx(whole.of("evaluate")[0].execution.minutes / 10)
    assert less.of("evaluate")[0].execution.minutes == pytest.approx(whole.of("evaluate")[0].execution.minutes / 5)
    assert less.of("finetune")[0].execution.minutes == pytest.approx(whole.of("finetune")[0].execution.minutes / 4)


def a_plan(minutes: list[float], threads: list[int], needs: dict[int, list[int]]) -> Plan:
    """Runs 0, 1, ... of stage pretrain; `needs` are shorter runs, one each at most."""
    runs = []
    for n, (length, width) in enumerate(zip(minutes, threads)):
        (shorter,) = needs.get(n) or (None,)
        cost = Execution(threads=width, minutes=length, shares_with=None if shorter is None else f"run-{shorter}")
        runs.append(Run("pretrain", f"run-{n}", {}, {}, cost))
    return Plan("made", tuple(runs))


def wall(plan: Plan, cores: int) -> float:
    return time_plan(plan, cores).wall_minutes


def test_the_wall_time_on_cores_is_that_of_runs_side_by_side(root):
    assert wall(a_plan([3, 3, 3, 3], [1, 1, 1, 1], {}), 2) == 6
    assert wall(a_plan([3, 3, 3, 3], [2, 2, 2, 2], {}), 3) == 12  # a core stays idle
    assert wall(a_plan([5, 1, 1, 1, 1, 1], [1] * 6, {}), 2) == 5  # the longest first
    assert wall(a_plan([1, 2, 4], [1, 1, 1], {1: [0], 2: [1]}), 8) == 7  # one after another


def test_the_wall_time_lies_between_what_no_schedule_beats_and_one_run_after_another(root):
    random.seed(0)
    for _ in range(50):
        n = random.randint(1, 20)
        minutes, threads = [random.uniform(1, 9) for _ in range(n)], [random.randint(1, 3) for _ in range(n)]
        cores, alone = random.randint(3, 8), a_plan(minutes, threads, {})
        least = max(max(minutes), sum(m * t for m, t in zip(minutes, threads)) / cores)
        assert least - 1e-9 <= wall(alone, cores) <= sum(minutes) + 1e-9
        assert wall(a_plan(minutes, threads, {k: [k - 1] for k in range(1, n)}), cores) == pytest.approx(sum(minutes))


def test_what_is_finished_takes_no_wall_time(root):
    plan = a_plan([5, 3], [1, 1], {1: [0]})
    finish(plan.runs[0])
    assert wall(plan, 1) == 3 and time_plan(plan).finished == {("pretrain", "run-0")}


def test_plan_names_the_time_on_cores_and_refuses_fewer_than_a_run_needs(root, capsys):
    rates.keep(Measured((measured_here(flops_per_s=1e5),)))
    edit(root, QUICKSTART, "models:", "seeds: [0, 1]\nmodels:")
    edit(root, QUICKSTART, "threads_per_run: 1", "threads_per_run: 2")
    rates.keep(Measured((measured_here(threads=2, flops_per_s=1e5),)))
    one, two = (json.loads(printed(capsys, "--cores", str(cores), "--json"))["wall_minutes"] for cores in (2, 4))
    assert one == pytest.approx(2 * two) and one > 0
    assert "on 4 cores: about" in printed(capsys, "--cores", "4")
    for cores, wrong in (("1", "is fewer than the 2 threads that a run names"), ("0", "must be at least 1")):
        assert main(["plan", "quickstart", "--cores", cores]) == 1
        assert capsys.readouterr().err == f"--cores: {cores} {wrong}; write 2 or more\n"


def test_twenty_thousand_runs_are_laid_out_on_cores_within_1_percent_of_the_least(root):
    minutes, threads = [float(n % 17) for n in range(20_000)], [1 + n % 2 for n in range(20_000)]
    least = sum(m * t for m, t in zip(minutes, threads)) / 64
    assert least <= wall(a_plan(minutes, threads, {}), 64) <= 1.01 * least


def test_measure_keeps_the_rates_of_this_machine_for_plans(root, capsys, monkeypatch):
    """It trains for a moment; what it says is what a plan then reads."""
    small, n_sequences = rate.SIZES[0]
    monkeypatch.setattr(rate, "SIZES", ((small, n_sequences), (replace(small, name="wider", d_model=96), n_sequences)))
    edit(root, CPU, "device: CPU", "device: CPU\nkernels: native")
    assert main(["measure", "--seconds", "0.1", "--threads", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    kept = rates.read()
    assert {rate.flops_per_s for rate in kept.rates} == set(answer["flops_per_s"].values())
    assert answer["file"] == str(rates.path()) and answer["threads"] == 2 and answer["cpu"] == cpu_model()
    assert 0 < answer["start_s"]["pretrain"] <= answer["start_s"]["evaluate"]


def test_the_starts_of_more_threads_than_cores_are_not_kept_for_plans(root, capsys, monkeypatch):
    """1,000 threads on 2 cores took 23 s to start, which every plan then added to each of its runs."""
    monkeypatch.setattr(rate, "SIZES", rate.SIZES[:1] * 2)
    monkeypatch.setattr(rate, "granted_cores", lambda: 1)
    edit(root, CPU, "device: CPU", "device: CPU\nkernels: native")
    rates.keep(rates.Measured((), {"pretrain": 1.5}))
    assert main(["measure", "--seconds", "0.1", "--threads", "2"]) == 0
    assert "these starts are not kept: 2 threads are more than the 1 cores" in capsys.readouterr().out
    assert rates.read().start_s == {"pretrain": 1.5} and {one.threads for one in rates.read().rates} == {2}


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--hardware", "cpus"], "--hardware: there is no hardware profile 'cpus'; did you mean 'cpu'?"),
    (["--threads", "0"], "threads: must be from 1 to 1024, not 0; write e.g. 2"),
    (["--threads", "-3"], "threads: must be from 1 to 1024, not -3; write e.g. 2"),
    (["--seconds", "nan"], "--seconds: must be greater than 0 and below 100,000, not nan; write e.g. 2"),
])  # fmt: skip
def test_measure_answers_a_mistake_with_one_line(root, capsys, arguments, expected):
    assert main(["measure", *arguments]) == 1
    assert capsys.readouterr().err == expected + "\n"
