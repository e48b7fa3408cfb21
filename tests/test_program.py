"""Recordings of native kernels: what they compute, and that only the right one is taken from disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from cgpt.kernels.native import capture
from cgpt.training.trainer import AdamW, Trainer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for recordings, and how often something was recorded."""
    recorded = []

    def counted(*arguments):
        recorded.append(arguments)
        return record(*arguments)

    record = capture.record
    tiny.operations("native")  # the kernels, which the cache folder holds too, are compiled before it is changed
    capture._environment()
    monkeypatch.setattr(capture, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(capture, "record", counted)
    return tmp_path, recorded


def two_steps(config=tiny.CONFIG, weight_decay=0.1) -> list[tuple[float, float]]:
    trainer = Trainer(tiny.model(config=config), AdamW(weight_decay=weight_decay))
    return [trainer.step([tiny.batch(n)], 0.01) for n in range(2)]


def test_a_recording_is_made_once_and_another_owner_takes_it_from_disk_with_the_same_bits(cache):
    first = two_steps()
    assert len(cache[1]) == 1
    assert two_steps() == first
    assert len(cache[1]) == 1


@pytest.mark.parametrize("other", [{"n_head": 4}, {"layer_norm_epsilon": 1e-3}, {"d_ffn": 44}])
def test_what_another_model_recorded_is_not_taken(cache, other):
    first = two_steps()
    assert two_steps(replace(tiny.CONFIG, **other)) != first
    assert len(cache[1]) == 2


def test_another_weight_decay_is_another_recording(cache):
    two_steps()
    two_steps(weight_decay=0.5)
    assert len(cache[1]) == 2


def test_changed_code_is_another_recording(cache, monkeypatch):
    two_steps()
    monkeypatch.setattr(capture, "_environment", lambda: ("other code",))
    two_steps()
    assert len(cache[1]) == 2


def damage(path: Path, how: str) -> None:
    entry = json.loads(path.read_text())
    if how == "content":
        entry["content"] = entry["content"].replace("add_layer_norm", "linear", 1)
    elif how == "foreign":
        entry["key"] = entry["key"].replace("tiny", "mine")
    text = json.dumps(entry)
    path.write_text({"cut": text[: len(text) // 2], "empty": "", "list": "[1]"}.get(how, text))


@pytest.mark.parametrize("how", ["content", "foreign", "cut", "empty", "list"])
def test_a_damaged_or_foreign_file_is_recorded_anew_and_mended(cache, how):
    folder, recorded = cache
    wanted = two_steps()
    (path,) = folder.glob("program-*.json")
    whole = path.read_bytes()
    damage(path, how)
    assert path.read_bytes() != whole
    assert two_steps() == wanted
    assert len(recorded) == 2 and path.read_bytes() == whole


def test_a_recording_of_what_is_no_native_kernel_is_refused(cache):
    model = tiny.model()

    class Owner:
        def square(self, x):
            return (x * x,)

    with pytest.raises(AssertionError, match="square computes what is no native kernel"):
        model.captured(Owner().square, np.ones(3, np.float32))


RUN = """
import tiny
from cgpt.training.trainer import AdamW, Trainer
trainer = Trainer(tiny.model(), AdamW())
print([trainer.step([tiny.batch(n)], 0.01) for n in range(3)])
"""


def test_processes_that_start_together_on_an_empty_cache_agree(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parent}:{here}", "CGPT_CACHE": str(tmp_path)}
    runs = [subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = {run.communicate(timeout=120)[0] for run in runs}
    assert len(outputs) == 1 and b"nan" not in outputs.pop()
