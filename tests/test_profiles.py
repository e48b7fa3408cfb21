"""Hardware profiles: the shipped ones plan everywhere, a base is inherited, wrong ones are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from project import edit, write_project

from cgpt.__main__ import main
from cgpt.commands import doctor
from cgpt.cost.forecast import Request, forecast
from cgpt.errors import UserError
from cgpt.experiment import load, plan

ROOT = Path(__file__).parent.parent
WAFER = """\
description: a wafer
device: WSE
timing: modeled
peak_flops_per_s: {float16: 7.5e+15}
memory_bytes: 40_000_000_000
bandwidth_bytes_per_s: 2.0e+16
wafer: {precision: float16, mesh_side: 757, clock_hz: 1.1e+9, sram_bytes_per_core: 49152, io_bytes_per_s: 1.5e+11,
  max_systems: 192, measured_systems: 2, matmul_efficiency: 0.3, attention_efficiency: 0.1, pass_latency_s: 0.002,
  reduction_loss_per_doubling: 0.01, decode_cycles_per_layer: 4500, decode_cycles_per_hop: 16,
  decode_cycles_per_element: 1.1, prefill_cycles_per_hop: 4000, prefill_cycles_per_flop: 0.6}
"""


def loaded(tmp_path: Path, **profiles: str) -> dict:
    root = write_project(tmp_path)
    for name, text in profiles.items():
        (root / f"hardware_profiles/{name}.yaml").write_text(text)
    return load.load_workflow(root).hardware


def problems(tmp_path: Path, **profiles: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, **profiles)
    return list(caught.value.problems)


def test_an_experiment_plans_on_every_shipped_profile():
    workflow = load.load_workflow(ROOT)
    quickstart = workflow.experiments["quickstart"]
    train = replace(quickstart.train, batch_size=64)  # which every number of systems divides
    experiment = replace(quickstart, hardware=tuple(workflow.hardware), train=train)
    pretrained = plan.make_plan(experiment, workflow).of("pretrain")
    assert {run.spec["hardware"]["name"] for run in pretrained} == set(workflow.hardware)
    assert len(pretrained) == len(workflow.hardware) * len(experiment.models)


def test_modeled_profiles_name_their_sources_and_guess_no_price():
    for profile in load.load_workflow(ROOT).hardware.values():
        assert (profile.wafer is not None or profile.gpu is not None) == (profile.timing == "modeled")
        assert profile.timing == "measured" or profile.sources
        priced = profile.price_per_hour_usd is not None
        assert priced == any(source.startswith("price: ") for source in profile.sources), profile.name


def test_a_base_gives_what_a_profile_does_not_write(tmp_path):
    both = "base: one\ndescription: sixteen\nsystems: 16\nwafer: {measured_systems: 1}\n"
    profiles = loaded(tmp_path, one=WAFER, sixteen=both, more="base: sixteen\nsystems: 64\n")
    assert (profiles["sixteen"].systems, profiles["sixteen"].wafer.measured_systems) == (16, 1)
    assert profiles["sixteen"].wafer.pass_latency_s == profiles["one"].wafer.pass_latency_s == 0.002
    assert (profiles["more"].systems, profiles["more"].description) == (64, "sixteen")
    assert (profiles["one"].systems, profiles["one"].wafer.measured_systems) == (1, 2)


GPU = """\
description: a GPU
device: CUDA
dtype: bfloat16
timing: modeled
peak_flops_per_s: {bfloat16: 1.0e+15}
memory_bytes: 80_000_000_000
bandwidth_bytes_per_s: 3.0e+12
price_per_hour_usd: 2.0
gpu: {node_size: 8, link_bytes_per_s: 4.5e+11, network_bytes_per_s: 5.0e+10, measured_systems: 64,
  measured_inference_systems: 16, measured_d_model: [64, 8192], inference_d_model: [64, 8192],
  matmul_efficiency: 0.5, half_width: 280.0,
  attention_efficiency: 0.3, recompute_cost: 0.1, loss_per_doubling: 0.01, decode_bandwidth_efficiency: 0.8,
  decode_layer_latency_s: 9.2e-05, network_all_reduce_latency_s: 4.6e-05, prefill_efficiency: 0.8,
  prefill_all_reduce_s: 0.004}
"""
OTHER_MACHINES = [
    "peak_flops_per_s: {bfloat16: 1.65e+14}", "memory_bytes: 24_000_000_000", "bandwidth_bytes_per_s: 1.0e+12",
    "gpu: {link_bytes_per_s: 3.2e+10}", "gpu: {matmul_efficiency: 0.9}",
    "dtype: float16\npeak_flops_per_s: {float16: 1.0e+15}",
]  # fmt: skip
SAME_MACHINE = ["systems: 8", "price_per_hour_usd: 1.0", "power_w: 700", "description: mine", "sources: [a]",
                "memory_bytes: 80_000_000_000"]  # fmt: skip


def asked_of(profile, task: str) -> bool:
    """Whether a forecast on the profile is marked as extrapolated."""
    shape = "n_layer=4,d_model=1024,n_head=8,vocab=1000,seq_len=256"
    batch = 8 if task == "training" else None
    return forecast(Request(None, shape, "mine", task, batch_per_system=batch), {}, {"mine": profile})["extrapolated"]


@pytest.mark.parametrize("task", ["training", "decode", "prefill"])
@pytest.mark.parametrize("written", OTHER_MACHINES)
def test_what_another_machine_inherits_as_evidence_is_extrapolated(tmp_path, written, task):
    profiles = loaded(tmp_path, one=GPU, mine=f"base: one\n{written}\n", more="base: mine\nsystems: 2\n")
    assert not asked_of(profiles["one"], task)
    assert asked_of(profiles["mine"], task) and asked_of(profiles["more"], task)


@pytest.mark.parametrize("task", ["training", "decode", "prefill"])
@pytest.mark.parametrize("written", SAME_MACHINE)
def test_the_same_machine_in_other_numbers_or_at_another_price_keeps_its_evidence(tmp_path, written, task):
    assert not asked_of(loaded(tmp_path, one=GPU, mine=f"base: one\n{written}\n")["mine"], task)


def test_evidence_that_a_profile_writes_itself_holds(tmp_path):
    written = "base: one\nmemory_bytes: 24_000_000_000\ngpu: {measured_systems: 1, measured_d_model: [512, 2048]}\n"
    mine = loaded(tmp_path, one=GPU, mine=written)["mine"]
    assert not asked_of(mine, "training") and asked_of(mine, "decode")


def test_a_wafer_of_another_size_inherits_no_evidence_and_one_with_more_memory_beside_it_does(tmp_path):
    text = WAFER.replace("measured_systems: 2,", "measured_systems: 2, measured_d_model: [64, 4096],")
    profiles = loaded(tmp_path, one=text.replace("prefill_cycles_per_flop: 0.6", "prefill_cycles_per_flop: 0.6, "
                   "inference_d_model: [64, 4096], decode_grid: [100, 500]"),
                   mine="base: one\nwafer: {mesh_side: 700}\n",
                   hosted="base: one\nwafer: {host_memory_bytes: 1_000_000_000_000}\n")  # fmt: skip
    for task in ("training", "decode"):
        assert [asked_of(profiles[name], task) for name in ("one", "hosted", "mine")] == [False, False, True]


@pytest.mark.parametrize("written", ["resources: {threads: 8}", "kernels: native", "dtype: bfloat16", "device: CUDA"])
def test_a_rate_measured_with_other_threads_kernels_type_or_device_is_not_inherited(tmp_path, written):
    base = "description: a CPU\ndevice: CPU\nsustained_flops_per_s: 1.0e+11\nresources: {threads: 2}\n"
    profiles = loaded(tmp_path, one=base, mine=f"base: one\n{written}\n", same="base: one\ndescription: mine\n")
    assert profiles["mine"].sustained_flops_per_s is None and profiles["same"].sustained_flops_per_s == 1e11


def test_a_plan_says_which_of_its_modeled_machines_are_extrapolated(tmp_path, monkeypatch, capsys):
    loaded(tmp_path, one=GPU.replace("[64, 8192]", "[16, 8192]"), mine="base: one\nmemory_bytes: 24_000_000_000\n")
    edit(tmp_path, "workflows/experiments/quickstart.yaml", "models:", "hardware: [cpu, one, mine]\n"
         "weights_from: cpu\nmodels:")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "quickstart"]) == 0
    assert "modeled: one, mine (extrapolated), with the weights of cpu\n" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "expected"), [
    ("base: ones\n", "1: base: 'ones' is no hardware profile; did you mean 'one'?"),
    ("base: mine\n", "1: base: 'mine' leads back to this profile; known: cpu, one"),
    (WAFER.replace("pass_latency_s: 0.002", "pass_latency_s: 0"),
     "8: wafer.pass_latency_s: must be greater than 0, not 0.0; write a positive number"),
    (WAFER.replace("matmul_efficiency: 0.3", "matmul_efficiency: 30"),
     "8: wafer.matmul_efficiency: must be at most 1, not 30.0; write a smaller number"),
    (WAFER.replace("pass_latency_s", "latency_s"),
     "8: wafer.latency_s: unknown key; did you mean 'pass_latency_s'?"),
    (WAFER.replace("float16: 7.5e+15", "bfloat16: 7.5e+15"),
     "4: peak_flops_per_s.float16: is missing, and `wafer` needs it; write `peak_flops_per_s: {float16: <a number>}`"),
    (WAFER.replace("float16: 7.5e+15", "float16: 7.5e+15, fp8: 1.0"),
     "4: peak_flops_per_s.fp8: 'fp8' is not a choice; known: bfloat16, float16, float32"),
    (WAFER.replace("memory_bytes: 40_000_000_000\n", ""),
     " memory_bytes: is missing, and `wafer` needs it; write `memory_bytes: <a number>`"),
    (WAFER + "systems: 0\n", "systems: must be greater than 0, not 0; write a positive number"),
])  # fmt: skip
def test_a_wrong_profile_is_refused_with_key_and_what_to_write(tmp_path, text, expected):
    lines = problems(tmp_path, one=WAFER, mine=text)
    assert any(line.startswith("hardware_profiles/mine.yaml") and line.endswith(expected) for line in lines), lines


def test_doctor_says_of_a_modeled_profile_where_its_times_come_from(tmp_path):
    nowhere = replace(loaded(tmp_path, one=WAFER)["one"], device="NOWHERE")
    assert "run `cgpt forecast --hardware one`" in (doctor.why_not(nowhere) or "")


def test_doctor_says_that_a_modeled_wafer_trains_here_and_a_modeled_gpu_does_not(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = doctor.as_text(doctor.examine()).splitlines()
    line_of = {line.split()[1].rstrip(":"): line for line in lines if line.startswith("hardware")}
    assert "can run here (16 systems, computed by the processor, seconds and joules modeled)" in line_of["andromeda"]
    assert "can run here (computed by the processor, seconds and joules modeled)" in line_of["cs3"]
    assert "is modeled and computes nothing; name it in an experiment beside" in line_of["h100"]
