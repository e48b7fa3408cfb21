"""The training step: loss, gradients and AdamW, captured once per batch shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.errors import UserError
from cgpt.model.gpt import GPT
from cgpt.model.ids import check_targets, check_tokens
from cgpt.recipe import parametrization

if TYPE_CHECKING:
    from tinygrad import Tensor

    from cgpt.kernels.work import Work


@dataclass(frozen=True)
class AdamW:
    """Loshchilov and Hutter 2019; the defaults are Cerebras-GPT's."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    grad_clip: float = 1.0


class Trainer:
    """A model with its AdamW moments. `step` makes one update and returns loss and gradient norm."""

    def __init__(self, model: GPT, settings: AdamW):
        if model.weights_dtype != "float32":
            raise UserError(f"hardware profile: weights_dtype: {model.weights_dtype} is not what is trained; write "
                            "float32, and round the weights where the model is scored or writes")  # fmt: skip
        self.model, self.settings = model, settings
        self.n_updates = 0
        self.params = list(model.params.values())
        self.first, self.second = self._zeros(), self._zeros()
        self.totals: list[Tensor] = []  # sums of gradients, where a step has several micro-batches
        # Of each parameter, its factor on the learning rate and its weight decay: biases and LayerNorm have none,
        # embeddings do (Cerebras-GPT).
        self.scales = [
            (
                parametrization.learning_rate_factor(model.config, name),
                0.0 if name.endswith(".bias") or "ln_" in name else settings.weight_decay,
            )
            for name in model.params
        ]
        self._captured = self._capture()

    def step(self, micro_batches: Sequence[tuple[np.ndarray, np.ndarray]], lr: float) -> tuple[float, float]:
        """Update once from micro-batches of equal weight, each tokens and targets (B, T) int32; -1 is no target.

        Returns the mean loss in nats and the gradient norm before clipping. Raises ValueError for ids, lengths or types
        that the model does not take.
        """
        for tokens, targets in micro_batches:
            check_tokens(tokens, self.model.config)
            check_targets(targets, tokens, self.model.config)
        s, n = self.settings, self.n_updates + 1
        hyper = [lr, s.beta1, s.beta2, s.epsilon, s.grad_clip, 1 - s.beta1**n, 1 - s.beta2**n]
        if len(micro_batches) == 1:
            loss, norm = self._captured(self._forward_backward, *micro_batches[0], np.array(hyper, np.float32))
            losses = [loss.item()]
        else:
            self._add_totals()
            losses = []
            for i, (tokens, targets) in enumerate(micro_batches):
                factors = np.array([float(i > 0), 1 / len(micro_batches)], np.float32)
                losses.append(self._captured(self._forward_backward, tokens, targets, factors)[0].item())
            norm = self._captured(self._update, np.array(hyper, np.float32))[0]
        self.n_updates = n
        return float(np.mean(losses)), norm.item()

    def _add_totals(self) -> None:
        if not self.totals:
            self.totals = self._zeros()
            self._captured = self._capture()

    def _forward_backward(self, tokens: Tensor, targets: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a micro-batch, and what its gradients become: with AdamW's seven `numbers` the update, and their norm
        comes back; with two, keep and scale, another term of `totals`, of which one comes back."""
        from cgpt.kernels.tensors import split

        model = self.model
        tokens, targets = split(tokens), split(targets)
        x = model.embedding(tokens).detach()
        loss = model.ops.cross_entropy_head(model.hidden(x), model.head_weight, targets, model.dtype)
        grads = model.gradients(loss, x, tokens)
        # Before the update writes to the parameters: a loss realised later would be that of the new ones.
        loss.realize(*grads)
        if numbers.shape == (2,):
            return loss, model.ops.accumulate(self.totals, grads, numbers).realize()
        norm = model.ops.adamw(self.params, self.first, self.second, grads, numbers, self.scales)
        return loss, norm.realize()

    def _update(self, hyper: Tensor) -> tuple[Tensor]:
        norm = self.model.ops.adamw(self.params, self.first, self.second, self.totals, hyper, self.scales)
        return (norm.realize(),)

    def _zeros(self) -> list[Tensor]:
        from cgpt.kernels.tensors import realized

        return [realized(np.broadcast_to(np.float32(0), p.shape), self.model.device) for p in self.params]

    def work(self, n_sequences: int, n_micro_batches: int) -> Counter[Work]:
        """Work of the kernels of one step on so many sequences, each counted; nothing is run."""
        from tinygrad import Tensor

        from cgpt.kernels.native.capture import listing, record, work_in
        from cgpt.kernels.tensors import unwritten

        def of(function: Callable, *arrays: np.ndarray) -> list[Work]:
            inputs = [unwritten(a, self.model.device) for a in arrays]
            with listing() as kernels:
                outputs = function(*inputs)
                Tensor.realize(*outputs)
            return work_in(record(function.__qualname__, kernels, inputs, outputs, self._captured.state))

        tokens = np.empty((n_sequences // n_micro_batches, self.model.config.seq_len), np.int32)
        hyper, factors = np.empty(7, np.float32), np.empty(2, np.float32)
        if n_micro_batches == 1:
            return Counter(of(self._forward_backward, tokens, tokens, hyper))
        self._add_totals()
        each, update = of(self._forward_backward, tokens, tokens, factors), of(self._update, hyper)
        return Counter(each * n_micro_batches + update)

    def _capture(self) -> Any:
        state = [*self.params, *self.first, *self.second, *self.totals]
        identity = [*self.model.identity, self.scales]
        return self.model.ops.Captured(self.model.device, state, identity)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, moments and the number of updates, as NumPy arrays."""
        from cgpt.kernels.tensors import read

        state = {"n_updates": np.array([self.n_updates], np.int64)}
        for kind, tensors in (("p", self.params), ("m", self.first), ("v", self.second)):
            state |= {f"{kind}.{name}": read(tensor) for name, tensor in zip(self.model.params, tensors)}
        return state

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `state` returned."""
        from cgpt.kernels.tensors import write

        self.n_updates = int(state["n_updates"][0])
        for kind, tensors in (("p", self.params), ("m", self.first), ("v", self.second)):
            for name, tensor in zip(self.model.params, tensors):
                write(tensor, state[f"{kind}.{name}"])
