"""Training as on GPUs, without one: products in bfloat16, batches shared by two devices, refusals in one line.

The devices are two of the processor's. Where the profile `gpu` can run, one test trains on it.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy_gpt
import pytest
import tiny
from project import EXPERIMENT, edit, write_project
from test_model import LR, SMALL, assert_same_weights, reference_losses
from tinygrad import Tensor
from tinygrad.device import Compiler
from tinygrad.helpers import BEAM, Context
from tinygrad.runtime.support import compiler_cuda

from cgpt import __main__ as command_line
from cgpt.commands import doctor
from cgpt.errors import UserError
from cgpt.experiment import load, plan
from cgpt.experiment.run import Plan
from cgpt.hardware import Hardware
from cgpt.inference.generate import Generator
from cgpt.kernels import backend
from cgpt.kernels.tensors import Placement
from cgpt.model.gpt import GPT
from cgpt.model.loglikelihood import score
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer

ROOT = Path(__file__).parent.parent
GPU = (ROOT / "hardware_profiles/gpu.yaml").read_text()
ONE, TWO = "CPU", ("CPU", "CPU:1")
ROUNDING = 2.0**-9  # largest relative error of a number in bfloat16, which keeps 8 bits of it
BATCHES = [tiny.batch(seed, 2, 9, SMALL.vocab_size or 0) for seed in range(len(LR))]


def trainer(placement: Placement, dtype: str = "float32") -> Trainer:
    model = GPT(SMALL, tiny.rough_parameters(SMALL), tiny.operations("tinygrad"), placement, dtype)
    return Trainer(model, AdamW())


@functools.cache
def trained(placement: Placement, dtype: str = "float32") -> tuple[np.ndarray, Trainer]:
    """Loss and gradient norm of each of ten steps, and the trainer after them."""
    made = trainer(placement, dtype)
    return np.array([made.step([batch], lr) for batch, lr in zip(BATCHES, LR)]), made


@functools.cache
def by_numpy() -> tuple[np.ndarray, dict]:
    """Loss and gradient norm of each of ten steps of NumPy's GPT, and its weights after them."""
    steps, params = reference_losses(SMALL, tiny.rough_parameters(SMALL), BATCHES, LR)
    return np.array(steps), params


def rounded(value: np.ndarray) -> np.ndarray:
    """To the nearest number of bfloat16."""
    bits = value.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def test_ten_losses_on_two_devices_equal_those_on_one_and_those_of_numpy():
    (wanted, weights), (one, _), (two, made) = by_numpy(), trained(ONE), trained(TWO)
    np.testing.assert_allclose(one, wanted, rtol=1e-5)
    np.testing.assert_allclose(two, wanted, rtol=1e-5)
    assert_same_weights(made.model, weights)


def test_a_state_of_two_devices_goes_on_on_one():
    one, two = trained(ONE)[1], trained(TWO)[1]
    one.load_state(two.state())
    np.testing.assert_allclose(one.step([BATCHES[0]], 0.01), two.step([BATCHES[0]], 0.01), rtol=1e-5)


def test_accumulated_gradients_of_two_devices_equal_those_of_the_whole_batch():
    whole = np.random.default_rng(0).integers(0, SMALL.vocab_size or 0, (2, 6, 9)).astype(np.int32)
    wanted, last = reference_losses(SMALL, tiny.rough_parameters(SMALL), [tuple(whole)] * 2, LR)
    made = trainer(TWO)
    parts = [tuple(whole[:, i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose([made.step(parts, lr) for lr in LR[:2]], wanted, rtol=2e-5)
    assert_same_weights(made.model, last)


def test_scores_on_two_devices_equal_numpy_whether_or_not_the_rows_can_be_shared():
    params = tiny.rough_parameters(SMALL)
    model = GPT(SMALL, params, tiny.operations("tinygrad"), TWO)
    sequences = list(np.random.default_rng(1).integers(0, SMALL.vocab_size or 0, (4, 10)).astype(np.int32))
    for rows in (sequences, sequences[:1]):
        for tokens, (ours, _) in zip(rows, score(model, rows, [3] * len(rows))):
            prob = numpy_gpt.softmax(numpy_gpt.run(params, tokens[None, :-1], n_head=SMALL.n_head)[0])
            wanted = np.log(prob[np.arange(9), tokens[1:]])[2:]
            np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.slow
def test_continuations_on_two_devices_are_those_of_one():
    config, prompts = replace(SMALL, seq_len=20), [[1, 2, 3], [4, 5]]
    params = tiny.rough_parameters(config)
    made = [
        Generator(GPT(config, params, tiny.operations("tinygrad"), where)).generate(prompts, 6) for where in (ONE, TWO)
    ]
    assert made[0] == made[1] and len(made[0][0]) == 6


def test_ten_losses_in_bfloat16_are_those_of_float32_as_far_as_its_rounding_goes():
    """On the way to a loss a number is rounded some times, each product of matrices once more, at random: a few
    roundings in all. The processor has no such products: tinygrad rounds there every factor's product too."""
    wanted, ours = by_numpy()[0], trained(ONE, "bfloat16")[0]
    error = np.abs(ours / wanted - 1)
    assert 1e-5 < error[:, 0].max() < 4 * ROUNDING  # more than float32's
    assert error[:, 1].max() < 16 * ROUNDING  # gradient norms: every product three times, and nothing is averaged


def test_weights_under_bfloat16_move_by_steps_that_it_could_not_hold():
    _, made = trained(ONE, "bfloat16")
    before = made.model.numpy()
    made.step([BATCHES[0]], 1e-6)
    after = made.model.numpy()
    for name, value in before.items():
        assert value.dtype == after[name].dtype == np.float32
        if value.ndim == 2:
            used = np.abs(after[name] - value) > 0  # positions that no batch reached have no gradient
            assert used.mean() > 0.4, name
            assert (rounded(after[name]) == rounded(value)).mean() > 0.95, name
    assert {value.dtype for name, value in made.state().items() if name != "n_updates"} == {np.dtype(np.float32)}


def test_gradients_under_bfloat16_are_float32():
    model = GPT(SMALL, tiny.rough_parameters(SMALL), tiny.operations("tinygrad"), ONE, "bfloat16")
    loss, grads = tiny.loss_and_grads(model, *(Tensor(array, device=ONE) for array in BATCHES[0]))
    assert {str(tensor.dtype) for tensor in (loss, *grads)} == {"dtypes.float"}
    assert [grad.shape for grad in grads] == [param.shape for param in model.params.values()]


@pytest.mark.slow
def test_bfloat16_on_two_devices_rounds_after_the_sum_over_devices():
    np.testing.assert_allclose(trained(TWO, "bfloat16")[0], trained(ONE, "bfloat16")[0], rtol=ROUNDING / 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tinygrad", "native"])
def test_ten_losses_in_bfloat16_are_those_of_pytorch_under_autocast(tmp_path, kind):
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "workflows/bench"))
    import peer_pretrain

    from cgpt.bench import inputs

    config = replace(SMALL, name="peer")
    peer = peer_pretrain.load(inputs.write_checkpoint(tmp_path, config))
    update, losses = peer_pretrain.optimizer(peer, AdamW()), []
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, config.vocab_size or 0, (2, 2, 9)).astype(np.int32) for _ in LR]
    for tokens, targets in batches:
        with torch.autocast("cpu", torch.bfloat16):
            loss = peer(torch.from_numpy(tokens), torch.from_numpy(targets).long())
        update.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(peer.parameters()), 1.0)
        update.step()
        losses.append(loss.item())
    params = inputs.init_parameters(config, inputs.SEED)
    ours = Trainer(GPT(config, params, tiny.operations(kind), ONE, "bfloat16"), AdamW())
    our_losses = [ours.step([(tokens, targets)], inputs.LR)[0] for tokens, targets in batches]
    np.testing.assert_allclose(our_losses, losses, rtol=2 * ROUNDING)


def test_every_matrix_product_of_a_bfloat16_step_is_one_for_tensor_cores(monkeypatch):
    """Rendered for an H100 and not run, with a vocabulary that tensor cores cannot divide."""

    class Rendered(Compiler):
        def __init__(self, arch: str, ptx: bool, cache_key: str):
            super().__init__(None)

        def compile(self, src: str) -> bytes:
            return src.encode()

    config = Model("wide", n_layer=1, d_model=64, n_head=2, seq_len=32, d_ffn=128, vocab_size=50)
    monkeypatch.setattr(compiler_cuda, "NVRTCCompiler", Rendered)
    with Context(DEV="NULL:CUDA:sm_90", NULL_ALLOW_COPYOUT=1, JIT=2):
        model = GPT(config, tiny.rough_parameters(config), tiny.operations("tinygrad"), "NULL", "bfloat16")
        made = Trainer(model, AdamW())
        made.step([tiny.batch(0, 2, 32, 50)], 0.01)
    ((captured, _),) = made._captured._calls.values()
    kernels_of_step = [call.src[0].src[3].arg for call in captured.captured.linear.src]
    products = 3 * (4 + 2 + 1) + 1  # linear, attention and head, each with two gradients; the embedding's gradient
    assert sum("__WMMA_8_16_16___bf16_float(" in source for source in kernels_of_step) == products


@pytest.mark.parametrize(("changes", "expected"), [
    ({"dtype: bfloat16": "dtype: float16"}, "dtype: float16 needs its losses scaled, which training here does not do; "
     "write bfloat16 or float32"),
    ({"kernels: tinygrad": "kernels: native"}, "kernels: native ones run on the processor, not on CUDA; "
     "write `kernels: tinygrad`"),
    ({"kernels: tinygrad": "kernels: native", "dtype: bfloat16": "dtype: float32", "systems: 1": "systems: 2"},
     "systems: 2 cannot share native kernels' work; write 1, or `kernels: tinygrad`"),
    ({"kernels: tinygrad": "kernels: native", "dtype: bfloat16": "dtype: float32", "beam: 0": "beam: 2"},
     "beam: 2 searches among tinygrad's kernels; write 0, or `kernels: tinygrad`"),
    ({"beam: 0": "beam: -1"}, "beam: must be at least 0 (no search), not -1; write 0 or more"),
])  # fmt: skip
def test_a_profile_that_asks_for_what_its_kernels_have_not_is_refused(tmp_path, changes, expected):
    root = write_project(tmp_path)
    (root / "hardware_profiles/gpu.yaml").write_text(GPU)
    for old, new in changes.items():
        edit(root, "hardware_profiles/gpu.yaml", old, new)
    with pytest.raises(UserError) as caught:
        load.load_workflow(root)
    (problem,) = caught.value.problems
    assert problem.startswith("hardware_profiles/gpu.yaml:") and problem.endswith(f": {expected}")


def test_what_the_loader_refuses_is_refused_for_a_profile_made_in_code_too():
    with pytest.raises(UserError, match=r"hardware_profiles/mine.yaml: dtype: float16 needs its losses scaled"):
        backend.prepare(Hardware("mine", "", device="CPU", dtype="float16", kernels="native"))


def project(folder: Path, **keys: str) -> Path:
    """A project whose experiment runs on a GPU that is nowhere."""
    root = write_project(folder)
    lines = {"device": "NOWHERE", "dtype": "bfloat16"} | keys
    text = "description: a GPU\n" + "".join(f"{key}: {value}\n" for key, value in lines.items())
    (root / "hardware_profiles/nowhere.yaml").write_text(text)
    (root / "workflows/experiments/quickstart.yaml").write_text(EXPERIMENT + "hardware: [nowhere]\n")
    return root


def planned(root: Path) -> Plan:
    workflow = load.load_workflow(root)
    return plan.make_plan(workflow.experiments["quickstart"], workflow)


@pytest.mark.parametrize(("old", "new", "where"), [
    ("batch_size: 4", "batch_size: 6", "experiments/quickstart.yaml:4: train.batch_size: 6"),
    ("batch_size: 4", "batch_size: 8, micro_batch_size: 2", "experiments/quickstart.yaml:4: train.micro_batch_size: 2"),
    ("scratch]", "scratch], batch_size: 2", "experiments/quickstart.yaml: finetune.batch_size: 2"),
    ("epochs: 2", "epochs: 2, batch_size: 3", "tasks/topic.yaml: finetune.batch_size: 3"),
])  # fmt: skip
def test_a_batch_that_the_systems_cannot_share_evenly_is_refused_when_it_is_planned(tmp_path, old, new, where):
    root = project(tmp_path, systems="4")
    assert planned(root).of("pretrain")
    file = "workflows/" + ("tasks/topic.yaml" if where.startswith("tasks") else "experiments/quickstart.yaml")
    edit(root, file, old, new)
    with pytest.raises(UserError) as caught:
        planned(root)
    assert caught.value.problems[0] == (f"workflows/{where} sequences cannot be shared evenly by the 4 systems of "
                                        "hardware profile 'nowhere'; write a multiple of 4")  # fmt: skip


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "evaluate"])
def test_a_run_whose_device_is_not_here_is_planned_and_stops_in_one_line_before_data_is_read(
    tmp_path, monkeypatch, capsys, stage
):
    monkeypatch.chdir(project(tmp_path, systems="2"))
    assert command_line.main([stage, planned(tmp_path).of(stage)[0].id]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("hardware_profiles/nowhere.yaml: device: NOWHERE cannot be opened here (")
    assert error.endswith("); install its driver and compiler, write fewer `systems`, or name another profile under "
                         "`hardware:`\n")  # fmt: skip
    assert not (tmp_path / "results").exists()


def test_a_benchmark_stops_in_one_line_where_the_device_is_not_here_or_the_batch_cannot_be_shared(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(project(tmp_path, systems="3"))
    assert command_line.main(["bench", "pretrain", "--model", "small", "--hardware", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("bench: --batch-size: 8 sequences cannot be shared evenly by the 3")
    assert command_line.main(["bench", "evaluate", "--model", "small", "--hardware", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("hardware_profiles/nowhere.yaml: device: NOWHERE cannot be opened here")


def test_doctor_says_why_a_profile_cannot_run_here_and_that_a_wafer_can():
    profiles = load.load_workflow(ROOT).hardware
    lost = doctor.why_not(replace(profiles["gpu"], device="NOWHERE")) or ""
    assert "hardware_profiles/gpu.yaml: device: NOWHERE cannot be opened here (" in lost and "\n" not in lost
    assert doctor.why_not(profiles["andromeda"]) is None


def test_a_measured_profile_computes_on_all_of_its_systems_and_a_modeled_one_on_one_device():
    gpus = Hardware("gpus", "", device="CUDA", systems=3)
    assert gpus.placement == ("CUDA", "CUDA:1", "CUDA:2")
    assert replace(gpus, systems=1).placement == "CUDA"
    assert replace(gpus, timing="modeled").placement == "CUDA"


def test_a_beam_is_set_for_the_process_and_decides_no_identity():
    searching = Hardware("gpu", "", device="CPU", beam=2)
    try:
        backend.prepare(searching)
        assert BEAM.value == 2
    finally:
        backend.prepare(replace(searching, beam=0))
    assert BEAM.value == 0
    assert plan.hardware_identity(searching) == plan.hardware_identity(replace(searching, beam=0, systems=4))


@pytest.mark.slow
def test_a_gpu_of_this_machine_trains_as_numpy_does():
    profile = load.load_workflow(ROOT).hardware["gpu"]
    if problem := doctor.why_not(profile):
        pytest.skip(problem)
    wanted = by_numpy()[0]
    np.testing.assert_allclose(trained(profile.device)[0], wanted, rtol=1e-4)
    np.testing.assert_allclose(trained(profile.device, profile.dtype)[0][:, 0], wanted[:, 0], rtol=4 * ROUNDING)
