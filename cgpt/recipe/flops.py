"""Parameter counts, and training FLOPs under the four published conventions."""

from cgpt.spec import Model


def ffn_width(model: Model) -> int:
    """Width of the feed-forward layer: `d_ffn`, or 4 d_model where that is left out."""
    return model.d_ffn or 4 * model.d_model


def vocabulary(model: Model) -> int:
    """The model's vocabulary size, which a plan has resolved; raises ValueError where it is still open."""
    if model.vocab_size is None:
        raise ValueError(f"{model.name}: vocab_size is not resolved")
    return model.vocab_size


def n_parameters(model: Model) -> int:
    """All parameters, a tied head counted once: V d + S d + L (12 d^2 + 13 d) + 2 d (Cerebras-GPT, Table 12)."""
    heads = 1 if model.tie_embeddings else 2
    return (heads * vocabulary(model) + model.seq_len) * model.d_model + n_parameters_non_embedding(model)


def n_parameters_non_embedding(model: Model) -> int:
    """Parameters of the blocks and the final LayerNorm: without token and position embedding and an untied head."""
    d, f = model.d_model, ffn_width(model)
    attention, feed_forward, layer_norms = 4 * d * d + 4 * d, 2 * d * f + f + d, 4 * d
    return model.n_layer * (attention + feed_forward + layer_norms) + 2 * d


def n_multiplied(model: Model) -> int:
    """Weights of the matrices of products, the head's included: V d + L (4 d^2 + 2 d F)."""
    d = model.d_model
    return vocabulary(model) * d + model.n_layer * (4 * d * d + 2 * d * ffn_width(model))


def flops_per_token(model: Model, convention: str = "palm") -> float:
    """Training FLOPs (forward and backward) per token, under one of CONVENTIONS."""
    return float(CONVENTIONS[convention](model))


def _six_n(model: Model) -> float:
    """6 N: two FLOPs a weight forward, four backward (Kaplan et al. 2020), with all parameters counted."""
    return 6 * n_parameters(model)


def _palm(model: Model) -> float:
    """6 N + 12 L S d (PaLM, appendix B): attention scores and values added, nothing halved for causality."""
    return 6 * n_parameters(model) + 12 * model.n_layer * model.seq_len * model.d_model


def _chinchilla(model: Model) -> float:
    """Hoffmann et al. 2022, appendix F: embeddings and softmax counted, backward = 2 forward."""
    layers, d, f, s, v = model.n_layer, model.d_model, ffn_width(model), model.seq_len, vocabulary(model)
    layer = 6 * d * d + 2 * s * d + 3 * model.n_head * s + 2 * s * d + 2 * d * d + 4 * d * f
    return 3 * (2 * v * d + layers * layer + 2 * v * d)


def _cerebras(model: Model) -> float:
    """72 L d^2 + 24 L S d + 10 V d: the formula that reproduces every FLOP count reported for Cerebras-GPT.

    Scores and values at 24 L S d, logits at 6 V d, the embedding as a matmul without input gradient at 4 V d.
    """
    layers, d, f = model.n_layer, model.d_model, ffn_width(model)
    return 6 * layers * (4 * d * d + 2 * d * f) + 24 * layers * model.seq_len * d + 10 * vocabulary(model) * d


CONVENTIONS = {"6nd": _six_n, "palm": _palm, "chinchilla": _chinchilla, "cerebras": _cerebras}
