"""Hardware profiles: the shipped ones plan everywhere, a base is inherited, wrong ones are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from project import write_project

from cgpt import doctor, load, plan
from cgpt.errors import UserError

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
    found = loaded(tmp_path, one=WAFER, sixteen=both, more="base: sixteen\nsystems: 64\n")
    assert (found["sixteen"].systems, found["sixteen"].wafer.measured_systems) == (16, 1)
    assert found["sixteen"].wafer.pass_latency_s == found["one"].wafer.pass_latency_s == 0.002
    assert (found["more"].systems, found["more"].description) == (64, "sixteen")
    assert (found["one"].systems, found["one"].wafer.measured_systems) == (1, 2)


@pytest.mark.parametrize(("text", "expected"), [
    ("base: ones\n", "1: base: 'ones' is no hardware profile; did you mean 'one'?"),
    ("base: mine\n", "1: base: 'mine' leads back to this profile; known: cpu, one"),
    (WAFER.replace("pass_latency_s: 0.002", "pass_latency_s: 0"),
     "8: wafer.pass_latency_s: must be greater than 0, not 0.0; write a positive number"),
    (WAFER.replace("matmul_efficiency: 0.3", "matmul_efficiency: 30"),
     "8: wafer.matmul_efficiency: must be at most 1, not 30.0; write a fraction of the peak"),
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
    found = problems(tmp_path, one=WAFER, mine=text)
    assert any(line.startswith("hardware_profiles/mine.yaml") and line.endswith(expected) for line in found), found


def test_doctor_says_of_a_modeled_profile_where_its_times_come_from(tmp_path):
    nowhere = replace(loaded(tmp_path, one=WAFER)["one"], device="NOWHERE")
    assert "run `python -m cgpt forecast --hardware one`" in (doctor.why_not(nowhere) or "")


def test_doctor_says_that_a_modeled_wafer_trains_here_and_a_modeled_gpu_does_not(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = doctor.as_text(doctor.examine()).splitlines()
    said = {line.split()[1].rstrip(":"): line for line in lines if line.startswith("hardware")}
    assert "can run here (16 systems, computed by the processor, seconds and joules modeled)" in said["andromeda"]
    assert "can run here (computed by the processor, seconds and joules modeled)" in said["cs3"]
    assert "is modeled and computes nothing; name it in an experiment beside" in said["h100"]
