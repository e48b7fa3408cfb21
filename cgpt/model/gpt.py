"""The GPT of the Cerebras-GPT study: GPT-2 with learned positions, pre-LN, dense attention; exact GELU and a tied head
where a model row does not say otherwise.

Shapes: B sequences, T tokens, C = d_model, H heads, V = vocabulary. Parameters carry GPT-2's names and layout
(`transformer.h.0.attn.c_attn.weight`, stored (in, out)), so that checkpoints map one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from cgpt.errors import UserError
from cgpt.hardware import Hardware
from cgpt.kernels import backend
from cgpt.model.ids import check_positions, check_targets, check_tokens, read_tokens
from cgpt.recipe import flops, parametrization
from cgpt.spec import Model

if TYPE_CHECKING:
    from tinygrad import Tensor

    from cgpt.data.end_tokens import EndTokens
    from cgpt.kernels.rounded import Rounded
    from cgpt.kernels.tensors import Placement


MOST_SHOWN = 20  # problems of one file's parameters
WTE, WPE, HEAD = "transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"


def parameter_shapes(config: Model) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in a fixed order."""
    C, F, V = config.d_model, flops.ffn_width(config), flops.vocabulary(config)
    shapes: dict[str, tuple[int, ...]] = {WTE: (V, C), WPE: (config.seq_len, C)}
    for i in range(config.n_layer):
        layer = {
            "ln_1.weight": (C,), "ln_1.bias": (C,),
            "attn.c_attn.weight": (C, 3 * C), "attn.c_attn.bias": (3 * C,),
            "attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,),
            "ln_2.weight": (C,), "ln_2.bias": (C,),
            "mlp.c_fc.weight": (C, F), "mlp.c_fc.bias": (F,),
            "mlp.c_proj.weight": (F, C), "mlp.c_proj.bias": (C,),
        }  # fmt: skip
        shapes |= {f"transformer.h.{i}.{name}": shape for name, shape in layer.items()}
    shapes |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,)}
    return shapes if config.tie_embeddings else shapes | {HEAD: (V, C)}


def is_multiplied(config: Model, name: str) -> bool:
    """Whether a parameter is a matrix of products: a layer's, or the head's, which may be the token embedding too."""
    return name.endswith(("attn.c_attn.weight", "c_proj.weight", "mlp.c_fc.weight")) or (
        name == (WTE if config.tie_embeddings else HEAD)
    )


def check_shapes(shapes: Mapping[str, tuple[int, ...]], config: Model, path: Path, remedy: str) -> None:
    """Raise UserError where names and shapes are not exactly those of the parameters of `config`; `remedy` ends each
    line."""
    wanted = parameter_shapes(config)
    problems = [f"{path}: {name}: is missing; {remedy}" for name in wanted if name not in shapes]
    problems += [f"{path}: {name}: is no parameter of this model; {remedy}" for name in shapes if name not in wanted]
    problems += [
        f"{path}: {name}: has shape {shapes[name]}, the configuration says {shape}; {remedy}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        n_more = len(problems) - MOST_SHOWN
        more = [f"{path}: {n_more:,} more parameters are wrong; {remedy}"] if n_more > 0 else []
        raise UserError(*problems[:MOST_SHOWN], *more)


def init_parameters(config: Model, seed: int) -> dict[str, np.ndarray]:
    """Draw initial weights, float32, on the host: the same on every device.

    Truncated normal, cut at two deviations of `parametrization.init_std`, biases 0, LayerNorm 1 and 0 (Dey et al. 2023,
    arXiv 2304.03208).
    """
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in parameter_shapes(config).items():
        if name.endswith(".bias"):
            params[name] = np.zeros(shape, np.float32)
        elif "ln_" in name:
            params[name] = np.ones(shape, np.float32)
        else:
            params[name] = (_truncated_normal(rng, shape) * parametrization.init_std(config, name)).astype(np.float32)
    return params


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


class GPT:
    """`model(tokens)` gives logits; `hidden` is the body, shared by the loss, the scores and the logits.

    `params` are float32 and stay so: copies of what is given, but arrays mapped from a file are used where they
    are. `dtype` is the type that their matrix products are computed in; `ends` are the tokens that begin and end its
    texts, where a checkpoint names them. With another `weights_dtype` than float32 the matrices of products are in
    `rounded` instead, and the model cannot be trained.
    """

    def __init__(
        self,
        config: Model,
        params: Mapping[str, np.ndarray],
        ops: ModuleType,
        device: Placement = None,
        dtype: str = "float32",
        ends: EndTokens | None = None,
        weights_dtype: str = "float32",
    ):
        from cgpt.kernels.rounded import rounded
        from cgpt.kernels.tensors import held

        self.config, self.ops, self.device, self.dtype, self.ends = config, ops, device, dtype, ends
        self.weights_dtype = weights_dtype
        self.params: dict[str, Tensor] = {}
        self.rounded: dict[str, Rounded] = {}
        shapes = {}
        for name, value in params.items():
            shapes[name] = tuple(value.shape)
            if weights_dtype != "float32" and is_multiplied(config, name):
                self.rounded[name] = rounded(value, weights_dtype, name not in (WTE, HEAD), device)
            else:
                self.params[name] = held(value, device)
        if shapes != parameter_shapes(config):
            wrong = sorted(dict(shapes.items() ^ parameter_shapes(config).items()))
            raise ValueError(f"params: {wrong[0]}: is not of the shape, or not of the model, that the config describes")
        # What decides, beside its parameters, what its functions compute.
        self.identity = [asdict(config), dtype, weights_dtype]
        self.captured = ops.Captured(device, self.state, self.identity)

    @classmethod
    def on(
        cls,
        hardware: Hardware,
        config: Model,
        params: Mapping[str, np.ndarray],
        threads: int | None = None,
        ends: EndTokens | None = None,
    ) -> GPT:
        """A model on the devices of a hardware profile, with its kernels and type. Raises UserError, as `prepare`."""
        ops = backend.prepare(hardware, threads)
        return cls(config, params, ops, hardware.placement, hardware.dtype, ends, hardware.weights_dtype)

    @property
    def state(self) -> list[Tensor]:
        """All tensors that hold its parameters."""
        return [*self.params.values(), *(t for w in self.rounded.values() for t in (w.values, w.scales))]

    def weight(self, name: str) -> Tensor | Rounded:
        """A parameter as products take it."""
        return self.rounded[name] if name in self.rounded else self.params[name]

    def embedding(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Token ids (B, T) int32, at positions 0 to T - 1 or, with T = 1, at those given -> first layer's input.

        Raises ValueError for ids or lengths that the model has not.
        """
        check_tokens(tokens, self.config)
        wte, wpe = self.rounded.get(WTE) or self.params[WTE], self.params[WPE]
        scale = parametrization.embedding_scale(self.config)
        if positions is not None:
            check_positions(positions, tokens, self.config)
        return self.ops.embedding(tokens, wte, wpe, scale, positions)

    def head(self, hidden: Tensor) -> Tensor:
        """Last layer's activations (B, T, C) -> logits (B, T, V) float32."""
        self._check_activations(hidden)
        return self.ops.head_logits(hidden, self.head_weight, self.dtype)

    @property
    def head_weight(self) -> Tensor | Rounded:
        """The head's weights (V, C): the token embedding's where they are tied."""
        return self.weight(WTE if self.config.tie_embeddings else HEAD)

    def attention_scale(self, layer: int) -> float:
        """Multiplier of a layer's products of queries and keys."""
        return parametrization.attention_scale(self.config, layer)

    def hidden(
        self, x: Tensor, independent: bool = False, attention: Callable[[int, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Input of the first layer -> last layer's normed activations, both (B, T, C), in which the multiplier of the
        logits is already.

        `attention` takes a layer's number and its qkv (B, T, 3 C) and returns (B, T, C); default: causal attention.
        """
        from cgpt.kernels.work import labelled

        self._check_activations(x)
        f = None
        for i in range(self.config.n_layer):
            with labelled(layer=i):
                x, f = self._block(i, x, f, independent, attention)
        w, b = self.params["transformer.ln_f.weight"], self.params["transformer.ln_f.bias"]
        logit_scale = parametrization.logit_scale(self.config)
        return self.ops.add_layer_norm(x, f, w, b, self.config.layer_norm_epsilon, logit_scale)[1]

    def _check_activations(self, x: Tensor) -> None:
        c, shape = self.config, tuple(x.shape)
        if len(shape) != 3 or 0 in shape or shape[1] > c.seq_len or shape[2] != c.d_model:
            raise ValueError(f"activations: have shape {shape}, not (B, T, C) with T up to {c.seq_len}, C {c.d_model}")

    def _block(self, i: int, x: Tensor, f: Tensor | None, independent: bool, attention: Callable | None) -> tuple:
        """One block: the residual stream and what is still to be added to it, before and after, all (B, T, C)."""
        ops, c, epsilon = self.ops, self.config, self.config.layer_norm_epsilon
        prefix = f"transformer.h.{i}."
        names = [name for name in (*self.params, *self.rounded) if name.startswith(prefix)]
        w = {name.removeprefix(prefix): self.weight(name) for name in names}
        linear = partial(ops.linear, independent=independent, dtype=self.dtype)
        x, y = ops.add_layer_norm(x, f, w["ln_1.weight"], w["ln_1.bias"], epsilon)
        qkv = linear(y, w["attn.c_attn.weight"], w["attn.c_attn.bias"])  # (B, T, 3C)
        y = attention(i, qkv) if attention else ops.attention(qkv, c.n_head, self.attention_scale(i))
        f = linear(y, w["attn.c_proj.weight"], w["attn.c_proj.bias"])
        x, y = ops.add_layer_norm(x, f, w["ln_2.weight"], w["ln_2.bias"], epsilon)
        y = linear(y, w["mlp.c_fc.weight"], w["mlp.c_fc.bias"], activation=c.activation)
        return x, linear(y, w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])

    def gradients(self, loss: Tensor, x: Tensor, tokens: Tensor) -> list[Tensor]:
        """Gradients of a loss in every parameter, float32: x (B, T, C), detached, is the embedding of the tokens (B, T)
        that the loss comes from, as its two tables get their gradients apart: one of them may be the head too."""
        wte, wpe, *others = self.params.values()
        tied = [wte] if self.config.tie_embeddings else []
        dx, *grads = loss.gradient(x, *tied, *others)
        dhead, scale = grads.pop(0) if tied else None, parametrization.embedding_scale(self.config)
        return [*self.ops.embedding_grads(dx, tokens, wte, wpe, dhead, scale, self.dtype), *grads]

    def token_logprobs(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """log p of targets (B, T, K) and whether each is the most likely token; no sequence depends on another."""
        from cgpt.kernels.tensors import split

        check_tokens(tokens, self.config)
        check_targets(targets, tokens, self.config)
        hidden = self.hidden(self.embedding(split(tokens)), independent=True)
        return self.ops.token_logprobs(hidden, self.head_weight, split(targets), self.dtype)

    def __call__(self, tokens: Tensor | np.ndarray | Sequence[Sequence[int]]) -> Tensor:
        """Token ids (B, T), lists or int32 -> logits (B, T, V) float32. Raises ValueError as `read_tokens`."""
        from cgpt.kernels.tensors import realized

        ids = realized(read_tokens(tokens, self.config), self.device)
        return self.head(self.hidden(self.embedding(ids), independent=True))

    def numpy(self) -> dict[str, np.ndarray]:
        """The parameters that it computes with as NumPy arrays, float32."""
        from cgpt.kernels.tensors import read

        return {name: self.rounded[name].numpy() if name in self.rounded else read(self.params[name])
                for name in parameter_shapes(self.config)}  # fmt: skip
