"""The operations of a GPT on the C kernels: each as the function of its name in `cgpt.kernels.plain.ops`.

A docstring here says what differs. `dims` are the sizes in the order of the struct in which the C function sees them.
With `dtype` bfloat16 both operands of a weight's products are rounded to it; what lies in memory is float32, and so are
the products of attention and those of one new token a sequence.
"""

from collections.abc import Sequence

from tinygrad import Tensor, dtypes

from cgpt.kernels.native.call import empty, native_call, scaled
from cgpt.kernels.native.capture import Captured as Captured
from cgpt.kernels.rounded import TYPES, Rounded
from cgpt.kernels.work import labelled

# Elementary operations per element, as common.h and attention.c write them, an exponential or a root counted as one.
ACTIVATION_FLOPS = {None: 0, "gelu": 28, "gelu_new": 12, "relu": 1}  # in the order that common.h numbers them in
SOFTMAX_FLOPS = 5


def embedding(
    tokens: Tensor, wte: Tensor | Rounded, wpe: Tensor, scale: float = 1.0, positions: Tensor | None = None
) -> Tensor:
    """As `plain.ops.embedding`; wte may be rounded."""
    (B, T), C = tokens.shape, wte.shape[1]
    rows = [wte.values, wte.scales] if isinstance(wte, Rounded) else [wte]
    name, dims = ("embedding_rounded", [TYPES.index(wte.dtype)]) if isinstance(wte, Rounded) else ("embedding", [])
    ins, flops = [tokens, *rows, wpe, *([] if positions is None else [positions])], 2 * B * T * C
    dims = [B, T, C, *dims, int(positions is not None)]
    return native_call(name, [empty(B, T, C, like=wpe)], ins, dims, [scale], flops)[0]


def embedding_grads(
    dx: Tensor,
    tokens: Tensor,
    wte: Tensor,
    wpe: Tensor,
    dhead: Tensor | None,
    scale: float = 1.0,
    dtype: str = "float32",
) -> tuple[Tensor, Tensor]:
    """As `plain.ops.embedding_grads`, a sum with any `dtype`; `dhead` is added to in place."""
    (B, T, C), V, S = dx.shape, wte.shape[0], wpe.shape[0]
    outs = [empty(V, C, like=wte) if dhead is None else dhead, empty(S, C, like=wpe)]
    dims = [B, T, C, S, V if dhead is None else 0]
    with labelled(phase="backward"):
        dwte, dwpe = native_call("embedding_bwd", outs, [dx, tokens], dims, [scale], 4 * B * T * C)
    return dwte, dwpe


def add_layer_norm(
    x: Tensor, f: Tensor | None, w: Tensor, b: Tensor, epsilon: float, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """As `plain.ops.add_layer_norm`."""
    C = x.shape[-1]
    rows = x.numel() // C

    def grad(outs, grads, ins):
        r, _, mean, rstd = outs
        dr, dy = grads if len(grads) == 2 else (grads[0], grads[0])
        new = [empty(*x.shape, like=x), empty(C, like=x), empty(C, like=x)]
        dims = [rows, C, int(len(grads) == 2)]
        ins, flops = [dr, dy, r, mean, rstd, ins[1]], 19 * rows * C
        dx, dw, db = native_call("add_layer_norm_bwd", new, ins, dims, [scale], flops)
        return (dx, dw, db) if f is None else (dx, dw, db, dx)

    outs = [empty(*x.shape, like=x), empty(*x.shape, like=x), empty(rows, like=x), empty(rows, like=x)]
    ins = [x, w, b] if f is None else [x, w, b, f]
    dims, flops = [rows, C, int(f is not None)], 10 * rows * C
    r, y, *_ = native_call("add_layer_norm", outs, ins, dims, [epsilon, scale], flops, grad)
    return r, y


def linear(
    x: Tensor,
    w: Tensor | Rounded,
    b: Tensor,
    activation: str | None = None,
    independent: bool = False,
    dtype: str = "float32",
) -> Tensor:
    """As `plain.ops.linear`; `independent` gives each of the B sequences the same bits whatever the others are, and so
    does a rounded w, which has no gradient."""
    if isinstance(w, Rounded):
        return _linear_rounded(x, w, b, activation)
    n_in, n_out = w.shape
    rows = x.numel() // n_in
    number = list(ACTIVATION_FLOPS).index(activation)
    dims = [rows, n_in, n_out, x.shape[-2] if independent else rows, number, _is_bfloat16(dtype)]
    shape = (*x.shape[:-1], n_out)
    flops, more = 2 * rows * n_in * n_out, rows * n_out * (1 + ACTIVATION_FLOPS[activation])
    if independent and x.shape[-2] == 1:
        return native_call("linear_few_rows", [empty(*shape, like=x)], [x, w, b], [*dims[:3], number], (), flops)[0]

    def grad(outs, grads, ins):
        new = [empty(*x.shape, like=x), empty(n_in, n_out, like=x), empty(n_out, like=x)]
        return tuple(native_call("linear_bwd", new, [grads[0], *ins[:2], *outs[1:]], dims, flops=2 * flops + more))

    outs = [empty(*shape, like=x) for _ in range(2 if activation else 1)]
    return native_call("linear", outs, [x, w, b], dims, flops=flops + more, grad=grad)[0]


def _is_bfloat16(dtype: str) -> int:
    return int(dtype == "bfloat16")


def _linear_rounded(x: Tensor, w: Rounded, b: Tensor | None = None, activation: str | None = None) -> Tensor:
    """x (B, T, n_in) w^T + b, w (n_out, n_in), each token on its own."""
    (B, T, n_in), n_out = x.shape, w.values.shape[0]
    rows = B * T
    ins = [x, w.values, w.scales, *([] if b is None else [b])]
    dims = [rows, n_in, n_out, TYPES.index(w.dtype), list(ACTIVATION_FLOPS).index(activation), int(b is not None)]
    flops = 2 * rows * n_in * n_out + rows * n_out * (1 + ACTIVATION_FLOPS[activation])
    return native_call("linear_rounded", [empty(B, T, n_out, like=x)], ins, dims, flops=flops)[0]


def attention(qkv: Tensor, n_head: int, scale: float) -> Tensor:
    """As `plain.ops.attention`; no T x T matrix is kept."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    dims = [B, T, n_head, C // n_head]
    pairs = B * n_head * T * (T + 1) // 2  # of a query and a key that it sees
    products, softmax = 2 * 2 * pairs * C // n_head, SOFTMAX_FLOPS * pairs

    def grad(outs, grads, ins):
        ins = [grads[0], outs[0], outs[1], ins[0]]
        flops = 5 * products // 2 + softmax + 2 * B * T * C  # the scores once more, and the products' four gradients
        return tuple(native_call("attention_bwd", [empty(B, T, 3 * C, like=qkv)], ins, dims, [scale], flops))

    outs = [empty(B, T, C, like=qkv), empty(B, n_head, T, like=qkv)]
    return native_call("attention", outs, [qkv], dims, [scale], products + softmax, grad)[0]


def store_prompt(qkv: Tensor, cache: Tensor, row: Tensor) -> Tensor:
    """As `plain.ops.store_prompt`."""
    T, (_, B, H, S, D) = qkv.shape[1], cache.shape
    return native_call("store_prompt", [cache], [qkv, row], [B, S, H, D, T])[0]


def cached_attention(qkv: Tensor, cache: Tensor, positions: Tensor, slots: Tensor, scale: float) -> Tensor:
    """As `plain.ops.cached_attention`."""
    _, B, H, S, D = cache.shape
    outs, ins = [empty(B, 1, H * D, like=qkv), cache], [qkv, positions, slots]
    return native_call("cached_attention", outs, ins, [B, S, H, D], [scale], 4 * B * S * H * D)[0]


def cross_entropy_head(x: Tensor, w: Tensor, targets: Tensor, dtype: str = "float32") -> Tensor:
    """As `plain.ops.cross_entropy_head`; the gradients are computed in the same pass."""
    V, C = w.shape
    rows = x.numel() // C

    def grad(outs, grads, ins):
        _, dx, dw = outs
        return scaled(dx, grads[0]), scaled(dw, grads[0]), None

    outs = [empty(1, like=x), empty(*x.shape, like=x), empty(V, C, like=x)]
    ins, flops = [x, w, targets], 6 * rows * C * V + SOFTMAX_FLOPS * rows * V
    dims = [rows, C, V, _is_bfloat16(dtype)]
    return native_call("cross_entropy_head", outs, ins, dims, flops=flops, grad=grad)[0].reshape(())


def token_logprobs(x: Tensor, w: Tensor | Rounded, targets: Tensor, dtype: str = "float32") -> tuple[Tensor, Tensor]:
    """As `plain.ops.token_logprobs`, each sequence on its own; a rounded w is restored, once a call."""
    if isinstance(w, Rounded):
        dims = [w.shape[1], w.shape[0], TYPES.index(w.dtype)]
        w = native_call("restore", [empty(*w.shape, like=x)], [w.values, w.scales], dims)[0]
    (B, T, C), (V, K) = x.shape, (w.shape[0], targets.shape[-1])
    outs = [empty(B, T, K, like=x), empty(B, T, K, like=x, dtype=dtypes.int32)]
    dims, flops = [B, T, C, V, K, _is_bfloat16(dtype)], 2 * B * T * C * V
    logprob, greedy = native_call("token_logprobs", outs, [x, w, targets], dims, flops=flops)
    return logprob, greedy


def head_logits(x: Tensor, w: Tensor | Rounded, dtype: str = "float32") -> Tensor:
    """As `plain.ops.head_logits`, each sequence on its own."""
    if isinstance(w, Rounded):
        return _linear_rounded(x, w)
    (B, T, C), V = x.shape, w.shape[0]
    name, dims = ("logits_few_rows", [B, C, V]) if T == 1 else ("head_logits", [B, T, C, V, _is_bfloat16(dtype)])
    return native_call(name, [empty(B, T, V, like=x)], [x, w], dims, flops=2 * B * T * C * V)[0]


def adamw(
    params: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    grads: Sequence[Tensor],
    hyper: Tensor,
    scales: Sequence[tuple[float, float]],
) -> Tensor:
    """As `plain.ops.adamw`, in one kernel, which is to be realised."""
    sizes = [int(p.numel()) for p in params]
    outs = [empty(1, like=hyper), *params, *first, *second]
    consts = [value for pair in scales for value in pair]
    dims, flops = [len(sizes), *sizes], 19 * sum(sizes)
    with labelled(phase="update"):
        return native_call("adamw", outs, [*grads, hyper], dims, consts, flops, reads_outs=True)[0]


def accumulate(totals: Sequence[Tensor], grads: Sequence[Tensor], factors: Tensor) -> Tensor:
    """As `plain.ops.accumulate`, in one kernel, which is to be realised."""
    sizes = [int(g.numel()) for g in grads]
    dims = [len(sizes), *sizes]
    with labelled(phase="update"):
        return native_call("accumulate", totals, [*grads, factors], dims, (), 2 * sum(sizes), reads_outs=True)[0]
