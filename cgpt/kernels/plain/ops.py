"""The operations of a GPT in plain tinygrad: what every device can run, and what the C kernels are tested against.

Matrix products are of the type `dtype`, float32 or bfloat16, with sums in float32; activations between them have that
type too. The residual stream, LayerNorm, softmax, losses and AdamW are float32, as under torch.autocast.
`contiguous`, and `contiguous_backward` for the gradient, end a kernel where tinygrad would else compute one product
inside of another, which neither tensor cores nor caches can follow.
"""

import math
from collections.abc import Sequence

from tinygrad import Tensor, dtypes

from cgpt.kernels.plain.capture import Captured as Captured

VOCABULARY_MULTIPLE = 64  # of rows that products are computed on: tensor cores take multiples of 8 and 16


def embedding(tokens: Tensor, wte: Tensor, wpe: Tensor, scale: float = 1.0, positions: Tensor | None = None) -> Tensor:
    """(wte[tokens] + wpe[positions]) * scale: tokens (B, T) int32, wte (V, C), wpe (S, C) -> (B, T, C).

    `positions` (B, T) int32; None: 0 to T - 1 in each sequence.
    """
    return (wte[tokens] + (wpe[: tokens.shape[1]] if positions is None else wpe[positions])) * scale


def embedding_grads(
    dx: Tensor,
    tokens: Tensor,
    wte: Tensor,
    wpe: Tensor,
    dhead: Tensor | None,
    scale: float = 1.0,
    dtype: str = "float32",
) -> tuple[Tensor, Tensor]:
    """Gradients (V, C) and (S, C) in wte and wpe of `embedding` at positions 0 to T - 1, from dx (B, T, C).

    `dhead` (V, C) is the gradient that a tied wte has as the head; it is added, and may be overwritten. The gradient in
    wte is a product: rows of 0 and one 1, by token, times dx. Adding up each token's rows is less
    work, but in an order that is another one each time.
    """
    V, C = wte.shape
    dx = dx.cast(dtype) * scale
    vocabulary = Tensor.arange(V + -V % VOCABULARY_MULTIPLE, device=dx.device)
    one_hot = (tokens.reshape(-1, 1) == vocabulary).cast(dx.dtype)  # (B T, V), never in memory
    dwte = _product(one_hot.T, dx.contiguous().reshape(-1, C)).contiguous()[:V]
    dwpe = dx.sum(0, dtype=dtypes.float32).pad(((0, wpe.shape[0] - dx.shape[1]), None))
    return (dwte if dhead is None else dwte + dhead.contiguous()), dwpe


def add_layer_norm(
    x: Tensor, f: Tensor | None, w: Tensor, b: Tensor, epsilon: float, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """r = x + f (or x), y = (LayerNorm(r) * w + b) * scale: (B, T, C) -> r, y, both (B, T, C)."""
    r = x if f is None else x + f
    return r, (r.layernorm(eps=epsilon) * w + b) * scale


def linear(
    x: Tensor,
    w: Tensor,
    b: Tensor,
    activation: str | None = None,
    independent: bool = False,
    dtype: str = "float32",
) -> Tensor:
    """activation(x @ w + b): (B, T, in), (in, out), (out) -> (B, T, out). `activation` as in cgpt.spec.Model.

    `independent` is for the native kernels, which then compute each of the B sequences on its own.
    """
    w = _operand(w, dtype)
    y = (_product(x.cast(w.dtype).contiguous(), w) + b).cast(w.dtype).contiguous().contiguous_backward()
    return ACTIVATIONS[activation](y.float()).cast(w.dtype) if activation else y


def _operand(w: Tensor, dtype: str) -> Tensor:
    """Weights as products take them."""
    return w if dtype == "float32" else w.cast(dtype).contiguous()


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (x * 0.5**0.5).erf())


def _gelu_new(x: Tensor) -> Tensor:
    return x * ((8 / math.pi) ** 0.5 * x * (1 + 0.044715 * x * x)).sigmoid()


ACTIVATIONS = {"gelu": _gelu, "gelu_new": _gelu_new, "relu": Tensor.relu}


def attention(qkv: Tensor, n_head: int, scale: float) -> Tensor:
    """Causal softmax attention of n_head heads: queries, keys and values packed (B, T, 3 C) -> (B, T, C)."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    packed = qkv.contiguous_backward().reshape(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)
    q, k, v = (part.contiguous_backward() for part in packed)  # each (B, H, T, D)
    score = _product(q, k.transpose(-1, -2)).contiguous_backward() * scale  # (B, H, T, T)
    hidden = Tensor.ones(T, T, dtype=dtypes.bool, device=qkv.device).triu(1)
    weights = score.masked_fill(hidden, -float("inf")).softmax()
    weights = weights.cast(qkv.dtype).contiguous().contiguous_backward()
    return _product(weights, v).transpose(1, 2).cast(qkv.dtype).contiguous().reshape(B, T, C).contiguous_backward()


def store_prompt(qkv: Tensor, cache: Tensor, row: Tensor) -> Tensor:
    """Write keys and values of qkv (1, T, 3 C) at positions 0 to T - 1 of a row (1,) int32 of the cache.

    The cache (2, B, H, S, D) holds keys, then values. Returns it.
    """
    T, (_, B, H, S, D) = qkv.shape[1], cache.shape
    new = qkv.reshape(T, 3, 1, H, D).permute(1, 2, 3, 0, 4)[1:].pad((None, None, None, (0, S - T), None))
    here = (Tensor.arange(B, device=qkv.device) == row).reshape(1, B, 1, 1, 1)
    here = here & (Tensor.arange(S, device=qkv.device) < T).reshape(1, 1, 1, S, 1)
    return cache.assign(here.where(new, cache))


def cached_attention(qkv: Tensor, cache: Tensor, positions: Tensor, slots: Tensor, scale: float) -> Tensor:
    """Softmax attention of one new token per sequence, qkv (B, 1, 3 C), to itself and the cached ones: -> (B, 1, C).

    Keys and values of the token are written at positions[b] (B, 1) int32 in row b of the cache (2, B, H, S, D). Those
    of an earlier token, at position t, are read in row slots[b, t] (B, S) int32; slots[b, positions[b]] is b.
    """
    _, B, H, S, D = cache.shape
    q, *new = qkv.reshape(B, 3, H, 1, D).permute(1, 0, 2, 3, 4)
    here = Tensor.arange(S, device=qkv.device) == positions  # (B, S)
    cache.assign(here.reshape(1, B, 1, S, 1).where(Tensor.stack(*new), cache))
    k, v = cache.gather(1, slots.reshape(1, B, 1, S, 1).expand(2, B, H, S, D))
    hidden = Tensor.arange(S, device=qkv.device) > positions
    score = (_product(q, k.transpose(-1, -2)) * scale).masked_fill(hidden.reshape(B, 1, 1, S), -float("inf"))
    return _product(score.softmax(), v).reshape(B, 1, H * D)


def cross_entropy_head(x: Tensor, w: Tensor, targets: Tensor, dtype: str = "float32") -> Tensor:
    """Mean cross-entropy, nats, of logits x @ w.T over the targets that are not negative, 0 if there are none.

    x (B, T, C), w (V, C), targets (B, T) int32 -> ().
    """
    logprob, _ = token_logprobs(x, w, targets.unsqueeze(-1), dtype)
    return -logprob.sum() / (targets >= 0).sum().maximum(1)


def token_logprobs(x: Tensor, w: Tensor, targets: Tensor, dtype: str = "float32") -> tuple[Tensor, Tensor]:
    """log p, nats, of K targets of each position, and whether each is the most likely token; 0 for a negative target.

    x (B, T, C), w (V, C), targets (B, T, K) int32 -> (B, T, K) float32, (B, T, K) int32.
    """
    logits, wanted = head_logits(x, w, dtype), targets >= 0
    of_target, top = logits.gather(-1, wanted.where(targets, 0)), logits.max(-1, keepdim=True).detach()
    logsumexp = (logits - top).exp().sum(-1, keepdim=True).log() + top
    return wanted.where(of_target - logsumexp, 0.0), (wanted & (of_target == top)).cast(dtypes.int32)


def head_logits(x: Tensor, w: Tensor, dtype: str = "float32") -> Tensor:
    """x @ w.T: (B, T, C), (V, C) -> (B, T, V) float32."""
    V = w.shape[0]
    w = _operand(w, dtype)
    w = w.pad(((0, -V % VOCABULARY_MULTIPLE), None)).contiguous().contiguous_backward()
    return _product(x.cast(w.dtype).contiguous(), w.T).contiguous().contiguous_backward()[..., :V]


def _product(x: Tensor, w: Tensor) -> Tensor:
    """x @ w, summed and returned in float32."""
    return x.matmul(w, dtype=dtypes.float32)


def adamw(
    params: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    grads: Sequence[Tensor],
    hyper: Tensor,
    scales: Sequence[tuple[float, float]],
) -> Tensor:
    """Update params and both moments in place; returns the global gradient norm (1,) before clipping.

    AdamW (Loshchilov and Hutter 2019) with clipping by global norm. `hyper` (7,): lr, beta1, beta2, epsilon, clip (0:
    none), 1 - beta1^t, 1 - beta2^t. `scales`: per parameter, its factor on lr and its weight decay.
    """
    lr, beta1, beta2, epsilon, clip, correction1, correction2 = (hyper[i : i + 1] for i in range(7))
    norm = Tensor.stack(*[g.square().sum() for g in grads]).sum().sqrt().reshape(1)
    clip_scale = ((clip > 0) & (norm > clip)).where(clip / (norm + 1e-6), 1.0)
    for p, m, v, g, (lr_scale, weight_decay) in zip(params, first, second, grads, scales):
        g = g * clip_scale.reshape([1] * g.ndim)
        m.assign(beta1.reshape([1] * g.ndim) * m + (1 - beta1) * g)
        v.assign(beta2.reshape([1] * g.ndim) * v + (1 - beta2) * g * g)
        step = lr * lr_scale
        p.assign(p * (1 - step * weight_decay) - step * (m / correction1) / ((v / correction2).sqrt() + epsilon))
    Tensor.realize(norm, *params, *first, *second)
    return norm


def accumulate(totals: Sequence[Tensor], grads: Sequence[Tensor], factors: Tensor) -> Tensor:
    """totals = keep * totals + scale * grads in place, factors (2,) = keep (0 or 1), scale; returns one of them."""
    keep, scale = factors[0:1], factors[1:2]
    for total, g in zip(totals, grads):
        total.assign((keep > 0).where(total, 0.0) + scale * g)
    Tensor.realize(*totals)
    return totals[0]
