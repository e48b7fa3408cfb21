"""The GPT and its training step against an independent one in NumPy, and the four traps of tinygrad."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import replace

import numpy as np
import numpy_gpt
import pytest
import tiny
from tinygrad import Tensor

from cgpt.model.gpt import GPT, init_parameters, parameter_shapes
from cgpt.recipe import flops
from cgpt.recipe.schedule import Schedule
from cgpt.spec import Model, Train
from cgpt.training.trainer import AdamW, Trainer

SMALL = Model("small", n_layer=1, d_model=12, n_head=2, seq_len=9, d_ffn=20, vocab_size=17)
HEADS_OF_ONE = Model("ones", n_layer=1, d_model=3, n_head=3, seq_len=1, vocab_size=2)
LONG = Model("long", n_layer=2, d_model=64, n_head=2, seq_len=130, vocab_size=67)
CASES = [  # configuration, rows, length, kernels
    (tiny.CONFIG, 3, 13, "native"),
    (SMALL, 2, 9, "tinygrad"),
    (HEADS_OF_ONE, 1, 1, "native"),
    (LONG, 1, 129, "native"),
    (LONG, 3, 70, "native"),
]
VARIANTS = {  # keys of a model row
    "tanh, untied": {"activation": "gelu_new", "tie_embeddings": False},
    "relu, by layer": {"activation": "relu", "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-5},
    "unscaled": {"scale_attn_weights": False, "d_ffn": 33},
    "mup": {"parametrization": "mup", "mup_base_width": 8.0, "mup_output_alpha": 1.5},
    "mup, untied": {"parametrization": "mup", "mup_base_width": 8.0, "tie_embeddings": False},
}
LR = [0.01, 0.02, 0.03, 0.03, 0.025, 0.02, 0.015, 0.01, 0.005, 0.002]


def by_hand(config: Model) -> dict:
    """A row's activation and multipliers for NumPy's GPT, and its factors on the learning rate."""
    d_head, m = config.d_model / config.n_head, config.d_model / config.mup_base_width
    mup, by_layer = config.parametrization == "mup", config.scale_attn_by_inverse_layer_idx
    scale = (1 / d_head if mup else d_head**-0.5) if config.scale_attn_weights else 1.0
    scores = [scale / (i + 1 if by_layer else 1) for i in range(config.n_layer)]
    return {"activation": config.activation,
            "scales": (scores, 10 if mup else 1, config.mup_output_alpha / m if mup else 1)}  # fmt: skip


def rate_factors(config: Model) -> dict[str, float]:
    """muP's factors on the learning rate: one over the width of what a weight of a block sums over."""
    if config.parametrization == "sp":
        return {}
    base = {"c_attn": config.mup_base_width, "c_fc": config.mup_base_width, "attn.c_proj": config.mup_base_width,
            "mlp.c_proj": 4 * config.mup_base_width}  # fmt: skip
    shapes = parameter_shapes(config).items()
    return {name: width / shape[0] for name, shape in shapes for key, width in base.items() if f"{key}.weight" in name}


def reference_losses(config: Model, params: dict, batches: list, lrs: list[float], **settings) -> tuple[list, dict]:
    """Loss and gradient norm of each step of NumPy's GPT under NumPy's AdamW, and the parameters at the end."""
    optimizer, losses = numpy_gpt.AdamW(**settings), []
    for (tokens, targets), lr in zip(batches, lrs):
        _, loss, grads = numpy_gpt.run(params, tokens, targets, config.n_head, **by_hand(config))
        params, norm = optimizer.step(params, grads, lr, rate_factors(config))
        losses.append((loss, norm))
    return losses, params


def assert_same_weights(model: GPT, wanted: dict) -> None:
    """Equal, as far as AdamW goes: it makes a step out of a gradient that is rounding alone, wherever that occurs.

    It always does in the keys' bias, which moves no score against another.
    """
    C = model.config.d_model
    for name, value in model.numpy().items():
        value, other = value.copy(), wanted[name].copy()
        if name.endswith("c_attn.bias"):
            value[C : 2 * C] = other[C : 2 * C] = 0
        assert np.sqrt(np.mean((value - other) ** 2)) < 1e-5, name
        assert np.abs(value - other).max() < 1e-3, name


@pytest.mark.parametrize("config, rows, length, kind", CASES, ids=lambda case: getattr(case, "name", case))
def test_logits_loss_and_every_gradient_equal_those_of_the_numpy_gpt(config, rows, length, kind):
    params = tiny.rough_parameters(config)
    tokens, targets = tiny.batch(1, rows, length, config.vocab_size)
    targets[0, 0] = 1
    logits, nats, wanted = numpy_gpt.run(params, tokens, targets, config.n_head)
    model = tiny.model(params, config, kind)
    loss, of_params = tiny.loss_and_grads(model, Tensor(tokens, device="CPU"), Tensor(targets, device="CPU"))
    grads = dict(zip(model.params, of_params))
    Tensor.realize(loss, *grads.values())
    ours = model(Tensor(tokens, device="CPU")).numpy()
    assert ours.shape == (rows, length, config.vocab_size)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=3e-6 * np.abs(logits).max())
    assert loss.item() == pytest.approx(nats, rel=1e-6)
    assert list(grads) == list(params) and set(wanted) == set(params)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad.numpy(), wanted[name], rtol=0, atol=1e-7 + 5e-6 * np.abs(wanted[name]).max())


@pytest.mark.parametrize("kind", ["native", "tinygrad"])
@pytest.mark.parametrize("row", VARIANTS.values(), ids=VARIANTS)
def test_activations_untied_heads_and_multipliers_equal_those_of_the_numpy_gpt(row, kind):
    config = replace(tiny.CONFIG if kind == "native" else replace(SMALL, n_layer=2), **row)
    params, (tokens, targets) = tiny.rough_parameters(config), tiny.batch(1, 2, 9, config.vocab_size)
    logits, nats, wanted = numpy_gpt.run(params, tokens, targets, config.n_head, **by_hand(config))
    model = tiny.model(params, config, kind)
    loss, of_params = tiny.loss_and_grads(model, Tensor(tokens, device="CPU"), Tensor(targets, device="CPU"))
    Tensor.realize(loss, *of_params)
    ours = model(Tensor(tokens, device="CPU")).numpy()
    np.testing.assert_allclose(ours, logits, rtol=0, atol=3e-6 * np.abs(logits).max())
    assert loss.item() == pytest.approx(nats, rel=1e-6)
    assert set(wanted) == set(params)
    for name, grad in zip(model.params, of_params):
        np.testing.assert_allclose(grad.numpy(), wanted[name], rtol=0, atol=1e-7 + 5e-6 * np.abs(wanted[name]).max())


@pytest.mark.parametrize("row", ["tanh, untied", "mup", "mup, untied"])
def test_ten_steps_of_an_untied_and_of_a_mup_model_equal_those_of_numpy(row):
    config = replace(tiny.CONFIG, **VARIANTS[row])
    params, batches = tiny.rough_parameters(config), [tiny.batch(seed) for seed in range(len(LR))]
    wanted, last = reference_losses(config, params, batches, LR)
    trainer = Trainer(tiny.model(params, config), AdamW())
    np.testing.assert_allclose([trainer.step([b], lr) for b, lr in zip(batches, LR)], wanted, rtol=2e-5)
    assert_same_weights(trainer.model, last)


def test_initial_weights_are_normal_cut_at_two_deviations_and_smaller_on_the_residual_path():
    config = Model("wide", n_layer=8, d_model=64, n_head=2, seq_len=32, vocab_size=512)
    cut_std = 0.8796  # of a standard normal cut at 2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
    for name, value in init_parameters(config, 3).items():
        std = 0.02 / 4 if "c_proj.weight" in name else 0.02
        if value.ndim == 2:
            assert np.abs(value).max() <= 2 * std * (1 + 1e-6), name
            assert value.std() == pytest.approx(cut_std * std, rel=0.05), name
            assert abs(value.mean()) < 5 * std / np.sqrt(value.size), name
        else:
            np.testing.assert_array_equal(value, 1.0 if name.endswith("weight") else 0.0)


def test_no_two_drawn_parameters_are_equal_on_the_device():
    weights = [value.ravel() for name, value in tiny.model().numpy().items() if value.ndim == 2]
    for i, one in enumerate(weights):
        for other in weights[:i]:
            n = min(len(one), len(other))
            assert not np.array_equal(one[:n], other[:n])


def test_a_seed_decides_the_initial_weights():
    one, same, other = (init_parameters(tiny.CONFIG, seed) for seed in (5, 5, 6))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["transformer.wte.weight"], other["transformer.wte.weight"])


@pytest.mark.parametrize("config", [tiny.CONFIG, SMALL, LONG], ids=lambda config: config.name)
def test_the_parameters_are_as_many_as_the_formula_says(config):
    assert sum(int(np.prod(shape)) for shape in parameter_shapes(config).values()) == flops.n_parameters(config)


def test_the_captured_step_has_the_losses_of_the_plain_one_and_moves_every_weight_at_every_step(monkeypatch):
    batches = [tiny.batch(seed) for seed in range(5)]

    def run() -> list[tuple]:
        trainer, steps = Trainer(tiny.model(tiny.rough_parameters()), AdamW()), []
        for batch in batches:
            before = trainer.model.numpy()
            steps.append(trainer.step([batch], 0.01))
            after = trainer.model.numpy()
            assert [name for name in before if np.array_equal(before[name], after[name])] == []
        return steps

    class Plain:  # runs the graph through tinygrad, kernel by kernel
        def __init__(self, device, state, identity):
            pass

        def __call__(self, function, *arrays):
            return [output.numpy() for output in function(*(Tensor(array, device="CPU") for array in arrays))]

    captured = run()
    monkeypatch.setattr(tiny.operations("native"), "Captured", Plain)
    assert captured == run()


def test_the_forward_pass_realizes_nothing():
    source = ast.parse(textwrap.dedent(inspect.getsource(GPT)))
    forward = {"embedding", "hidden", "gradients", "token_logprobs", "__call__"}
    methods = [node for node in ast.walk(source) if isinstance(node, ast.FunctionDef) and node.name in forward]
    assert {method.name for method in methods} == forward
    called = {node.attr for method in methods for node in ast.walk(method) if isinstance(node, ast.Attribute)}
    assert not called & {"realize", "numpy", "item", "tolist", "data"}


def test_every_parameter_has_a_gradient_at_the_first_step():
    trainer = Trainer(tiny.model(), AdamW())
    tokens, targets = tiny.batch(0, length=tiny.CONFIG.seq_len)
    trainer.step([(tokens, targets)], 0.01)
    still = {name for name, m in zip(trainer.model.params, trainer.first) if not np.abs(m.numpy()).any()}
    assert still == set()


@pytest.mark.parametrize("kind, config", [("native", tiny.CONFIG), ("tinygrad", SMALL)])
def test_ten_losses_and_the_weights_after_them_equal_those_of_numpy_with_clipping_and_decay(kind, config):
    params = tiny.rough_parameters(config)
    batches = [tiny.batch(seed, 2, 9, config.vocab_size) for seed in range(len(LR))]
    wanted, last = reference_losses(config, params, batches, LR)
    assert max(norm for _, norm in wanted) > 1.5, "the clipping is not tested"
    trainer = Trainer(tiny.model(params, config, kind), AdamW())
    ours = [trainer.step([batch], lr) for batch, lr in zip(batches, LR)]
    np.testing.assert_allclose(ours, wanted, rtol=2e-5)
    assert_same_weights(trainer.model, last)


def test_adamw_without_clipping_and_with_other_constants_equals_numpy():
    settings = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3, "weight_decay": 0.5}
    params, batches = tiny.rough_parameters(), [tiny.batch(seed) for seed in range(5)]
    wanted, last = reference_losses(tiny.CONFIG, params, batches, LR, clip=0.0, **settings)
    trainer = Trainer(tiny.model(params), AdamW(grad_clip=0.0, **settings))
    np.testing.assert_allclose([trainer.step([b], lr) for b, lr in zip(batches, LR)], wanted, rtol=2e-5)
    assert_same_weights(trainer.model, last)


def test_the_golden_losses_of_a_tiny_model_are_those_of_numpy():
    """Ten steps from the initial weights of seed 0, by the NumPy GPT and AdamW; the test above ties both together."""
    batches = [tiny.batch(0, 4, 20)] * 10
    wanted, _ = reference_losses(tiny.CONFIG, init_parameters(tiny.CONFIG, 0), batches, LR)
    trainer = Trainer(tiny.model(), AdamW())
    ours = [trainer.step([batch], lr)[0] for batch, lr in zip(batches, LR)]
    np.testing.assert_allclose([loss for loss, _ in wanted], GOLDEN, rtol=1e-6)
    np.testing.assert_allclose(ours, GOLDEN, rtol=3e-5)


GOLDEN = [3.9263278, 3.7679879, 3.5151137, 3.3309101, 3.0524309, 2.8835122, 2.5860018, 2.3337862, 2.1662067, 2.0624263]


@pytest.mark.parametrize("kind, config", [("native", tiny.CONFIG), ("tinygrad", SMALL)])
def test_accumulated_gradients_equal_those_of_the_whole_batch(kind, config):
    rng = np.random.default_rng(0)
    whole = [rng.integers(0, config.vocab_size, (2, 6, 9)).astype(np.int32) for _ in range(3)]
    wanted, last = reference_losses(config, tiny.rough_parameters(config), whole, LR)
    trainer = Trainer(tiny.model(tiny.rough_parameters(config), config, kind), AdamW())
    parts = [[(tokens[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)] for tokens, targets in whole]
    np.testing.assert_allclose([trainer.step(step, lr) for step, lr in zip(parts, LR)], wanted, rtol=2e-5)
    assert_same_weights(trainer.model, last)


def test_a_trainer_goes_on_from_its_state_with_the_same_bits_also_under_captured_functions():
    batches = [tiny.batch(seed) for seed in range(6)]
    whole, other = (Trainer(tiny.model(), AdamW()) for _ in range(2))
    for batch in batches[:3]:
        whole.step([batch], 0.01)
        other.step([tiny.batch(99)], 0.05)  # captures the step on other weights
    other.load_state(whole.state())
    assert [whole.step([b], 0.01) for b in batches[3:]] == [other.step([b], 0.01) for b in batches[3:]]
    for name, value in whole.state().items():
        np.testing.assert_array_equal(value, other.state()[name])


def test_what_is_read_from_a_trainer_does_not_change_when_it_goes_on():
    trainer = Trainer(tiny.model(), AdamW())
    trainer.step([tiny.batch(0)], 0.01)
    state = trainer.state()
    copy = {name: value.copy() for name, value in state.items()}
    for _ in range(3):
        trainer.step([tiny.batch(0)], 0.01)
    assert all(np.array_equal(state[name], copy[name]) for name in state)


def test_the_learning_rate_warms_up_to_its_peak_and_decays_to_its_floor():
    for schedule in ("linear", "cosine"):
        rates = [Schedule(0.5, 100, 10, schedule).rate(step) for step in range(100)]
        assert rates[:10] == pytest.approx([0.05 * n for n in range(1, 11)])
        assert rates[99] == pytest.approx(0.05)
        assert rates[54] == pytest.approx(0.5 * 0.55)  # halfway down, in both schedules
        assert (np.diff(rates[9:]) < 0).all()
    assert Schedule(0.5, 1, 0).rate(0) == pytest.approx(0.05)


def test_a_cosine_is_half_a_wave_from_the_peak_to_the_floor():
    """A quarter, a half and three quarters of the way; the straight line is at 0.775, 0.55 and 0.325 of the peak."""
    rates = [Schedule(0.5, 90, 10, "cosine").rate(step) for step in (29, 49, 69)]
    shares = np.array([2 + 2**0.5, 2, 2 - 2**0.5]) / 4
    assert rates == pytest.approx(0.5 * (0.1 + 0.9 * shares))
    assert [Schedule(0.5, 90, 10).rate(step) for step in (29, 49, 69)] == pytest.approx([0.3875, 0.275, 0.1625])


def test_a_cosine_decays_as_torchs_does():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.05)
    schedule = Schedule(0.5, 100, 10, "cosine")
    for step in range(10, 100):
        optimizer.step()
        peer.step()
        assert schedule.rate(step) == pytest.approx(peer.get_last_lr()[0])


def test_warm_up_stable_decay_stays_at_its_peak_and_its_length_changes_only_when_it_decays():
    short, long = (Schedule(0.5, steps, 10, "wsd", 0.1, 0.25) for steps in (100, 200))
    rates = [short.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * n for n in range(1, 11)])
    assert set(rates[9:75]) == {0.5} and short.first_decaying_step == 75
    assert rates[75:] == pytest.approx([0.5 * (0.1 + 0.9 * (24 - n) / 25) for n in range(25)])
    assert rates[:75] == [long.rate(step) for step in range(75)]


def test_a_warm_up_in_tokens_takes_the_steps_of_the_published_runs():
    """Cerebras-GPT warms up over 375 M tokens: 1525, 693, 346 and 176 steps of its batch sizes (its configurations)."""
    for batch_size, steps in ((120, 1525), (264, 693), (528, 346), (1040, 176), (720, 254)):
        train = Train(lr=1.0, batch_size=batch_size, steps=9000, warmup_tokens=375_000_000)
        assert Schedule.of(train, 2048).warmup_steps == steps
