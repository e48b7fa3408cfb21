"""Checkpoints whose weights are never in memory twice: mapped from their file, and read and written one by one."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tinygrad import Tensor

from cgpt import checkpoint, host
from cgpt.__main__ import main
from cgpt.checkpoint import folder as checkpoint_folder
from cgpt.checkpoint.safetensors_file import read_safetensors, write_safetensors
from cgpt.commands import run_stage
from cgpt.errors import UserError
from cgpt.experiment.load import read_workflow
from cgpt.experiment.plans import make_plans
from cgpt.files.mapped import ALIGNMENT
from cgpt.hardware import Resources
from cgpt.model.gpt import GPT, parameter_shapes
from cgpt.recipe import flops
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer

ROOT = Path(__file__).parent.parent
ALIGNED = replace(tiny.CONFIG, d_model=48, d_ffn=64, vocab_size=64, seq_len=32)  # all sizes are multiples of 16
LARGE = Model("large", n_layer=4, d_model=768, n_head=6, seq_len=256, vocab_size=512)  # 116 MB
WTE = "transformer.wte.weight"
TOKENS = np.array([[1, 7, 7, 3, 12], [4, 0, 9, 9, 1]], np.int32)

# What a process that has the checkpoint of a folder open and has scored two texts adds to itself: bytes of no file, and
# bytes of files. The same is done with a small checkpoint first, so that libraries and compiled code are there.
GROWTH = """
import re, sys
from dataclasses import replace
import numpy as np
from cgpt import checkpoint
from cgpt.kernels.backend import CPU
from cgpt.model.loglikelihood import score
def kilobytes(*names):
    status = open("/proc/self/status").read()
    return sum(int(re.search(rf"{name}:\\s+(\\d+)", status)[1]) for name in names)
profile = replace(CPU, weights_dtype=sys.argv[3])
def use(folder):
    model, _ = checkpoint.load(folder, profile, threads=2)
    score(model, [np.arange(1, 20, dtype=np.int32)] * 2, [1, 2])
    return model
use(sys.argv[1])
before = kilobytes("RssAnon", "RssShmem"), kilobytes("RssFile")
model = use(sys.argv[2])
after = kilobytes("RssAnon", "RssShmem"), kilobytes("RssFile")
print(*(1024 * (b - a) for a, b in zip(before, after)), 1024 * kilobytes("VmHWM"))
"""
PEAK = """
import sys
from cgpt.__main__ import main
from cgpt.host import peak_memory_bytes
assert main(["import-hf", sys.argv[1], "--out", sys.argv[1] + "-small"]) == 0
before = peak_memory_bytes()
assert main(["import-hf", sys.argv[2], "--out", sys.argv[2] + "-large"]) == 0
print(before, peak_memory_bytes())
"""


def written(folder: Path, config: Model, params: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True)
    tiny.write_tokenizer(folder.with_suffix(".json"), config.vocab_size or 0)
    params = tiny.rough_parameters(config) if params is None else params
    checkpoint.save(folder, config, params, folder.with_suffix(".json"))
    return folder


def noise(config: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: 0.02 * rng.standard_normal(shape, np.float32) for name, shape in parameter_shapes(config).items()}


def last_numbers(program: str, *folders: Path) -> list[int]:
    done = subprocess.run([sys.executable, "-c", program, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split("\n")[-2].split()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A small checkpoint and one of 116 MB."""
    root = tmp_path_factory.mktemp("large")
    return written(root / "small", ALIGNED), written(root / "large", LARGE, noise(LARGE))


def test_weights_are_the_pages_of_their_file_and_are_held_nowhere_else(folders):
    n_bytes = 4 * flops.n_parameters(LARGE)
    anonymous, of_files, peak = last_numbers(GROWTH, *folders, "float32")
    assert anonymous < 0.1 * n_bytes
    assert 0.9 * n_bytes < of_files < 1.1 * n_bytes
    assert peak < n_bytes + 300e6


def test_weights_that_are_rounded_give_the_pages_of_their_file_back(folders):
    n_bytes = 4 * flops.n_parameters(LARGE)
    anonymous, of_files, _ = last_numbers(GROWTH, *folders, "int8")
    assert 0.24 * n_bytes < anonymous < 0.4 * n_bytes
    assert of_files < 0.1 * n_bytes


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_import_holds_no_more_than_its_largest_tensors(folders, tmp_path, dtype):
    small, large = (tmp_path / name for name in ("small", "large"))
    for ours, theirs in zip(folders, (small, large)):
        assert main(["export-hf", str(ours), "--out", str(theirs)]) == 0
        params = load_file(theirs / "model.safetensors")
        save_file({name: value.astype(dtype) for name, value in params.items()}, theirs / "model.safetensors")
    before, after = last_numbers(PEAK, small, large)
    largest = 4 * max(int(np.prod(shape)) for shape in parameter_shapes(LARGE).values())
    assert after - before < 3 * largest < 0.3 * 4 * flops.n_parameters(LARGE)


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
def test_mapped_weights_give_the_bits_of_copied_ones(tmp_path, kind):
    folder, params = written(tmp_path / "run", ALIGNED), tiny.rough_parameters(ALIGNED)
    mapped = GPT(ALIGNED, checkpoint.read_params(folder, ALIGNED), tiny.operations(kind), "CPU")
    logits = [model(Tensor(TOKENS, device="CPU")).numpy() for model in (mapped, tiny.model(params, ALIGNED, kind))]
    np.testing.assert_array_equal(*logits)


def test_training_on_mapped_weights_changes_them_and_not_their_file(tmp_path):
    folder, params = written(tmp_path / "run", ALIGNED), tiny.rough_parameters(ALIGNED)
    before = (folder / "model.safetensors").read_bytes()
    weights = []
    for given in (checkpoint.read_params(folder, ALIGNED), params):
        trainer = Trainer(tiny.model(given, ALIGNED), AdamW())
        trainer.step([tiny.batch(0, vocab=64)], 1e-2)
        weights.append(trainer.model.numpy())
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])
        assert not np.array_equal(value, params[name])
    assert (folder / "model.safetensors").read_bytes() == before
    assert not np.array_equal(load_file(folder / "model.safetensors")["transformer.wte.weight"], weights[0][WTE])


def test_a_model_keeps_its_weights_when_its_checkpoint_is_replaced_or_gone(tmp_path):
    folder = written(tmp_path / "run", ALIGNED)
    model, _ = checkpoint.load(folder, tiny.CPU, tiny.THREADS)
    before = model(TOKENS).numpy()
    checkpoint.save(folder, ALIGNED, tiny.rough_parameters(ALIGNED, 1), tmp_path / "run.json")
    other, _ = checkpoint.load(folder, tiny.CPU, tiny.THREADS)
    (folder / "model.safetensors").unlink()
    gc.collect()
    np.testing.assert_array_equal(model(TOKENS).numpy(), before)
    assert not np.array_equal(other(TOKENS).numpy(), before)


def test_the_pages_of_a_checkpoint_are_given_back_with_its_last_model(tmp_path):
    def n_maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path / "run"))

    model, _ = checkpoint.load(written(tmp_path / "run", ALIGNED), tiny.CPU, tiny.THREADS)
    weight = model.params[WTE]
    assert n_maps() == 1
    del model
    gc.collect()
    assert n_maps() == 1 and np.isfinite(weight.numpy()).all()
    del weight
    gc.collect()
    assert n_maps() == 0


def test_weights_of_odd_widths_and_files_of_another_writer_are_read_all_the_same(tmp_path):
    odd = written(tmp_path / "odd", tiny.CONFIG)
    other = written(tmp_path / "other", ALIGNED)
    params = tiny.rough_parameters(ALIGNED)
    save_file(params, other / "model.safetensors")
    starts = {value.ctypes.data % ALIGNMENT for value in checkpoint.read_params(odd, tiny.CONFIG).values()}
    assert len(starts) > 1
    for folder, config, wanted in ((odd, tiny.CONFIG, tiny.rough_parameters()), (other, ALIGNED, params)):
        model, _ = checkpoint.load(folder, tiny.CPU, tiny.THREADS)
        np.testing.assert_array_equal(model(TOKENS).numpy(), tiny.model(wanted, config)(TOKENS).numpy())


def test_a_written_file_is_what_the_library_reads_and_its_numbers_begin_aligned(tmp_path):
    path, params = tmp_path / "model.safetensors", tiny.rough_parameters(ALIGNED)
    digest = write_safetensors(path, parameter_shapes(ALIGNED), params)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(params)
        assert all(np.array_equal(file.get_tensor(name), value) for name, value in params.items())
    for name, value in read_safetensors(path, mapped=True).items():
        assert value.ctypes.data % ALIGNMENT == 0, name


def test_weights_in_brain_floats_are_opened_as_the_same_numbers(tmp_path):
    folder, params = written(tmp_path / "run", ALIGNED), tiny.rough_parameters(ALIGNED)
    rounded = {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in params.items()}
    header, content = {}, b""
    for name, value in rounded.items():
        data = (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)
    model, _ = checkpoint.load(folder, tiny.CPU, tiny.THREADS)
    np.testing.assert_array_equal(model(TOKENS).numpy(), tiny.model(rounded, ALIGNED)(TOKENS).numpy())


def test_a_checkpoint_larger_than_the_memory_is_refused_in_one_line_before_its_weights_are_read(tmp_path, monkeypatch):
    folder = written(tmp_path / "run", ALIGNED)
    monkeypatch.setattr(host, "memory_bytes", lambda: 100 << 20)
    monkeypatch.setattr(checkpoint_folder, "read_params", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder, tiny.CPU, tiny.THREADS)
    assert caught.value.problems == (
        f"{folder}: takes about 134 MiB of memory, and there are 100 here; take a smaller model, or a machine with "
        "more",
    )


def test_a_run_that_takes_more_memory_than_there_is_is_refused_in_one_line_before_it_starts(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    workflow = read_workflow(ROOT)
    run = next(run for run in make_plans(workflow).by_experiment["quickstart"].runs if run.stage == "evaluate")
    monkeypatch.setattr(host, "memory_bytes", lambda: 150 << 20)
    assert main(["evaluate", run.id]) == 1
    assert capsys.readouterr().err == (
        f"{run.id}: takes about {run.execution.memory_bytes / 2**20:.0f} MiB of memory, and there are 150 here; "
        "write a smaller model, batch_size or seq_len, or, if you know that it takes less, `resources: {mem_mb: ...}` "
        "in hardware_profiles/cpu.yaml\n"
    )
    known = replace(workflow.hardware["cpu"], resources=Resources(mem_mb=140))
    run_stage._refuse_too_large(run, known)
    run_stage._refuse_too_large(run, replace(workflow.hardware["cpu"], device="CUDA", kernels="tinygrad"))


def test_memory_is_the_machines_and_at_most_the_limits_of_all_groups_around(tmp_path, monkeypatch):
    machine = host.memory_bytes()
    monkeypatch.setattr(host, "CGROUPS", tmp_path)
    entries, read, text = Path("/proc/self/cgroup"), Path.read_text, "0::/outer/inner\n"
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: text if path == entries else read(path, *a, **k))
    (tmp_path / "outer/inner").mkdir(parents=True)
    whole = host.memory_bytes()
    assert whole and machine and machine <= whole
    for file, limit, memory in (("outer/memory.max", "max", whole), ("outer/inner/memory.max", str(3 << 20), 3 << 20),
                                ("outer/memory.max", str(2 << 20), 2 << 20)):  # fmt: skip
        (tmp_path / file).write_text(limit + "\n")
        assert host.memory_bytes() == memory
    text = "4:memory:/outer\n3:cpu,cpuacct:/outer\n"
    (tmp_path / "memory/outer").mkdir(parents=True)
    for limit, memory in ((2**63 - 4096, whole), (5 << 20, 5 << 20)):
        (tmp_path / "memory/outer/memory.limit_in_bytes").write_text(f"{limit}\n")
        assert host.memory_bytes() == memory
