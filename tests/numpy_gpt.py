"""A GPT in NumPy, float64: logits, loss, every gradient, AdamW. Written from the papers, sharing nothing with cgpt.

Parameters carry GPT-2's names. Row vectors, weights stored (in, out): y = x W + b. `d` before a name is the gradient.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erf

EPSILON = 1e-5


def norm(x, w, b):
    """LayerNorm over the last axis; returns also what its gradient needs."""
    rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    normed = (x - x.mean(-1, keepdims=True)) * rstd
    return normed * w + b, (normed, rstd, w)


def norm_gradient(dy, saved):
    """Gradients of x, w, b."""
    normed, rstd, w = saved
    dn = dy * w
    dx = rstd * (dn - dn.mean(-1, keepdims=True) - normed * (dn * normed).mean(-1, keepdims=True))
    return dx, (dy * normed).sum((0, 1)), dy.sum((0, 1))


def gelu(x):
    """x times the normal distribution function (Hendrycks and Gimpel 2016), and its slope."""
    below = 0.5 * (1 + erf(x / math.sqrt(2)))
    return x * below, below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_new(x):
    """The approximation with tanh (Hendrycks and Gimpel 2016), and its slope."""
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 0.134145 * x * x)


def relu(x):
    """The positive part, and its slope."""
    return np.maximum(x, 0), (x > 0) * 1.0


ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_new, "relu": relu}


def softmax(x):
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear_gradient(dy, x, w):
    """Gradients of x, w, b."""
    return dy @ w.T, np.einsum("bti,bto->io", x, dy), dy.sum((0, 1))


def split(x, n_head):
    """(B, T, C) -> (B, H, T, D)"""
    return x.reshape(*x.shape[:2], n_head, -1).transpose(0, 2, 1, 3)


def merge(x):
    """(B, H, T, D) -> (B, T, C)"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def run(params, tokens, targets=None, n_head=1, activation="gelu", scales=(None, 1, 1), seen=None):
    """Logits (B, T, V); with targets (B, T), -1 for none, also the mean loss in nats and all gradients.

    `scales`: of the scores by layer (None: 1 / sqrt of a head's width), of the embedding, of the logits. The head is
    lm_head.weight where the parameters have one. `seen`, a dict, is given the activations by place.
    """
    score_scales, embedding_scale, logit_scale = scales
    p = {name.removeprefix("transformer."): value.astype(np.float64) for name, value in params.items()}
    n_layer, T = sum(name.endswith("ln_1.bias") for name in p), tokens.shape[1]
    head = "lm_head.weight" if "lm_head.weight" in p else "wte.weight"
    score_scales = score_scales or [1 / math.sqrt(p["wte.weight"].shape[1] // n_head)] * n_layer
    x, saved = embedding_scale * (p["wte.weight"][tokens] + p["wpe.weight"][:T]), []
    for i in range(n_layer):
        w = {name.removeprefix(f"h.{i}."): value for name, value in p.items() if name.startswith(f"h.{i}.")}
        y1, norm1 = norm(x, w["ln_1.weight"], w["ln_1.bias"])
        q, k, v = (split(z, n_head) for z in np.split(y1 @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"], 3, -1))
        score = q @ k.swapaxes(-1, -2) * score_scales[i]
        att = softmax(np.where(np.tril(np.ones((T, T), bool)), score, -np.inf))
        mixed = merge(att @ v)
        x = x + mixed @ w["attn.c_proj.weight"] + w["attn.c_proj.bias"]
        y2, norm2 = norm(x, w["ln_2.weight"], w["ln_2.bias"])
        wide, slope = ACTIVATIONS[activation](y2 @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"])
        x = x + wide @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
        saved.append((w, y1, norm1, q, k, v, att, mixed, y2, norm2, wide, slope))
    last, norm_f = norm(x, p["ln_f.weight"], p["ln_f.bias"])
    logits = logit_scale * last @ p[head].T
    if seen is not None:
        for i, (_, _, _, q, k, v, _, mixed, *_) in enumerate(saved):
            seen |= {f"qkv {i}": np.concatenate([merge(z) for z in (q, k, v)], -1), f"attention {i}": mixed}
        first = embedding_scale * (p["wte.weight"][tokens] + p["wpe.weight"][:T])
        seen |= {"embedding": first, "hidden": last, "logits": logits}
    if targets is None:
        return logits
    wanted, n = targets >= 0, max(1, int((targets >= 0).sum()))
    prob = softmax(logits)
    of_target = np.take_along_axis(prob, np.maximum(targets, 0)[..., None], -1)[..., 0]
    loss = -np.log(of_target[wanted]).sum() / n

    dlogits = (prob - (np.arange(prob.shape[-1]) == targets[..., None])) * wanted[..., None] / n * logit_scale
    g = {name: np.zeros_like(p[name]) for name in ("wte.weight", "wpe.weight")}
    g[head] = np.einsum("btv,btc->vc", dlogits, last)
    dx, g["ln_f.weight"], g["ln_f.bias"] = norm_gradient(dlogits @ p[head], norm_f)
    for i, (w, y1, norm1, q, k, v, att, mixed, y2, norm2, wide, slope) in reversed(list(enumerate(saved))):
        at = f"h.{i}."

        def linear(name, dy, x, w=w, at=at):
            dx, g[f"{at}{name}.weight"], g[f"{at}{name}.bias"] = linear_gradient(dy, x, w[f"{name}.weight"])
            return dx

        dy = linear("mlp.c_fc", linear("mlp.c_proj", dx, wide) * slope, y2)
        through, g[f"{at}ln_2.weight"], g[f"{at}ln_2.bias"] = norm_gradient(dy, norm2)
        dx = dx + through
        dmixed = split(linear("attn.c_proj", dx, mixed), n_head)
        datt = dmixed @ v.swapaxes(-1, -2)
        dscore = att * (datt - (datt * att).sum(-1, keepdims=True)) * score_scales[i]
        dqkv = [dscore @ k, dscore.swapaxes(-1, -2) @ q, att.swapaxes(-1, -2) @ dmixed]
        dy = linear("attn.c_attn", np.concatenate([merge(z) for z in dqkv], -1), y1)
        through, g[f"{at}ln_1.weight"], g[f"{at}ln_1.bias"] = norm_gradient(dy, norm1)
        dx = dx + through
    np.add.at(g["wte.weight"], tokens, embedding_scale * dx)
    g["wpe.weight"][:T] += embedding_scale * dx.sum(0)
    return logits, loss, {name if name == "lm_head.weight" else f"transformer.{name}": g[name] for name in g}


class AdamW:
    """Loshchilov and Hutter 2019, algorithm 2, after clipping by global norm; only matrices are decayed."""

    def __init__(self, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, clip=1.0):
        self.beta1, self.beta2, self.epsilon, self.weight_decay, self.clip = beta1, beta2, epsilon, weight_decay, clip
        self.t, self.m, self.v = 0, {}, {}

    def step(self, params, grads, lr, factors=None):
        """The new parameters and the gradient norm before clipping; `factors` on the learning rate, by name."""
        norm = math.sqrt(sum(float((g * g).sum()) for g in grads.values()))
        shrink = min(1.0, self.clip / norm) if self.clip else 1.0
        self.t, new = self.t + 1, {}
        for name, p in params.items():
            g = grads[name] * shrink
            self.m[name] = self.beta1 * self.m.get(name, 0) + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v.get(name, 0) + (1 - self.beta2) * g * g
            m, v = self.m[name] / (1 - self.beta1**self.t), self.v[name] / (1 - self.beta2**self.t)
            decay, rate = (self.weight_decay if p.ndim == 2 else 0.0), lr * (factors or {}).get(name, 1.0)
            new[name] = p - rate * decay * p - rate * m / (np.sqrt(v) + self.epsilon)
        return new, norm
