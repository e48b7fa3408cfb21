"""The device WSE: the CPU's bits, and a meter that misses no kernel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tiny
from tinygrad import Tensor, TinyJit

from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.kernels.work import Work, labelled, meter, metered, rows
from cgpt.model.gpt import GPT, init_parameters
from cgpt.spec import Model
from cgpt.training.trainer import AdamW, Trainer

SYSTEMS = ("WSE", "WSE:1")
A, B = (np.random.default_rng(n).normal(size=shape).astype(np.float32) for n, shape in ((0, (64, 48)), (1, (48, 32))))


@pytest.fixture(autouse=True)
def meters():
    """The device made known, its meters at 0."""
    tiny.operations("native")
    backend.prepare(Hardware("cs2", "", device="WSE", kernels="tinygrad"), tiny.THREADS)
    for device in SYSTEMS:
        meter(device).clear()


def products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x @ y).relu().sum(0).realize(), (x @ y).softmax().realize()


def on(device: str) -> list[np.ndarray]:
    return [out.numpy() for out in products(Tensor(A, device=device), Tensor(B, device=device))]


def flops_of(device: str) -> float:
    return metered(meter(device))["metered_flops"]


def trainer(device: str, kind: str, config: Model = tiny.CONFIG) -> Trainer:
    return Trainer(GPT(config, init_parameters(config, 0), tiny.operations(kind), device), AdamW())


def step(trainer: Trainer, n: int = 0) -> tuple[float, float]:
    return trainer.step([tiny.batch(n)], 0.01)


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
def test_training_on_the_device_has_the_bits_of_the_cpu_and_every_step_is_metered_alike(kind):
    ours, on_cpu = (trainer(device, kind, tiny.ONE_LAYER) for device in ("WSE", "CPU"))
    assert step(ours) == step(on_cpu)
    one = dict(meter("WSE"))
    for n in (1, 2):
        step(ours, n)
    three = meter("WSE")
    assert {work: 3 * n for work, n in one.items() if work.flops} == {w: n for w, n in three.items() if w.flops}


def test_tinygrads_own_kernels_have_the_bits_of_the_cpu_and_are_metered_also_when_replayed():
    plain = on("CPU")
    assert all(np.array_equal(one, other) for one, other in zip(on("WSE"), plain))
    once = flops_of("WSE")
    assert once >= 2 * 2 * A.shape[0] * B.size  # two products
    captured = TinyJit(products)
    for _ in range(4):  # as it is, captured, replayed twice
        inputs = [Tensor(value, device="WSE").realize() for value in (A, B)]
        meter("WSE").clear()
        assert np.array_equal(captured(*inputs)[1].numpy(), plain[1])
        assert flops_of("WSE") == once


def test_a_tensor_sharded_over_two_systems_has_half_of_the_work_on_each_also_when_replayed():
    plain, captured = on("CPU"), TinyJit(products)
    for _ in range(4):
        x = Tensor(A, device="WSE").shard(SYSTEMS, axis=0).realize()
        y = Tensor(B, device="WSE").shard(SYSTEMS).realize()
        for device in SYSTEMS:
            meter(device).clear()
        for ours, wanted in zip(captured(x, y), plain):
            np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-5, atol=1e-5)
        assert flops_of("WSE") == flops_of("WSE:1") > A.shape[0] * B.size


def test_kernels_are_counted_by_layer_and_phase():
    step(trainer("WSE", "native"))
    flops: Counter[tuple[int | None, str]] = Counter()
    for work, n in meter("WSE").items():
        flops[work.layer, work.phase] += n * work.flops
    for layer in range(tiny.CONFIG.n_layer):
        assert flops[layer, "forward"] == flops[0, "forward"] > 0
        assert flops[layer, "backward"] == flops[0, "backward"]
    assert flops[0, "backward"] > 1.9 * flops[0, "forward"]
    kinds = {(w.kernel, w.phase) for w in meter("WSE") if w.layer is None}
    assert {("embedding", "forward"), ("embedding_bwd", "backward"), ("adamw", "update")} < kinds


def test_adamw_reads_weights_moments_and_gradients_and_writes_the_first_two():
    step(trainer("WSE", "native"))
    n_bytes = 4 * sum(int(np.prod(p.shape)) for p in init_parameters(tiny.CONFIG, 0).values())
    (adamw,) = (work for work in meter("WSE") if work.kernel == "adamw")
    assert adamw.bytes_written == pytest.approx(3 * n_bytes, abs=64)
    assert adamw.bytes_read == pytest.approx(4 * n_bytes, abs=64)


def test_a_label_ends_with_its_block_also_where_that_fails():
    from cgpt.kernels.work import label

    with pytest.raises(ValueError), labelled(layer=3):
        with labelled(phase="backward"):
            assert label() == (3, "backward")
        assert label() == (3, "forward")
        raise ValueError
    assert label() == (None, "forward")


def test_a_meter_sums_what_it_was_given():
    calls, work = Counter[Work](), Work("linear", 1, "forward", 10, 4, 2)
    calls.update({work: 2})
    calls.update({work: 1, Work("linear", 2, "forward", 100, 1, 1): 1})
    assert metered(calls) == {"metered_flops": 130, "metered_bytes": 3 * 6 + 2}
    sums = {row["layer"]: (row["n_calls"], row["flops"], row["bytes_read"]) for row in rows(calls)}
    assert sums == {1: (3, 30, 12), 2: (1, 100, 1)}
