"""Standard (`sp`) and maximal update (`mup`) parametrization: deviations, multipliers and learning rates of a GPT.

muP is that of Cerebras-GPT (Dey et al. 2023, arXiv 2304.03208, after Yang et al. 2022), with m = width / base width:

    tensor                        initial std           learning rate   forward
    embeddings (an untied head)   sigma                 eta             (token + position) * mup_embedding_scale
    qkv, feed-forward in          sigma / sqrt(m)       eta / m         scores = q k / d_head, not its root
    attention and ffn out         .. / sqrt(2 n_layer)  eta / m
    LayerNorm, biases             1 and 0               eta
    logits                                                              * mup_output_alpha / m

The base model has a feed-forward width of 4 mup_base_width, and each weight takes the m of what it sums over.
"""

import math

from cgpt.recipe.flops import ffn_width
from cgpt.spec import Model

INIT_STD = {"sp": 0.02, "mup": 0.08}  # of Cerebras-GPT: GPT-2's, and the one tuned at the base width


def base_init_std(config: Model) -> float:
    """`init_std`, or Cerebras-GPT's of the parametrization where that is left out."""
    return INIT_STD[config.parametrization] if config.init_std is None else config.init_std


def init_std(config: Model, name: str) -> float:
    """Standard deviation, before it is cut, of the normal distribution that a weight is drawn from."""
    std = base_init_std(config)
    if name.endswith("c_proj.weight"):
        std = config.residual_init_std or std / math.sqrt(2 * config.n_layer)
    return std / math.sqrt(width_multiplier(config, name))


def learning_rate_factor(config: Model, name: str) -> float:
    """Factor of the learning rate of one parameter."""
    return 1 / width_multiplier(config, name)


def width_multiplier(config: Model, name: str) -> float:
    """m of one parameter: 1 for all but the weights of the blocks under muP."""
    if config.parametrization == "sp" or not name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")):
        return 1.0
    if name.endswith("mlp.c_proj.weight"):
        return ffn_width(config) / (4 * config.mup_base_width)
    return config.d_model / config.mup_base_width


def embedding_scale(config: Model) -> float:
    """Factor of the sum of token and position embedding."""
    return config.mup_embedding_scale if config.parametrization == "mup" else 1.0


def logit_scale(config: Model) -> float:
    """Factor of the logits."""
    if config.parametrization == "sp":
        return 1.0
    return config.mup_output_alpha * config.mup_base_width / config.d_model


def attention_scale(config: Model, layer: int) -> float:
    """Factor of the products of queries and keys of a layer; the first layer is number 0."""
    d_head = config.d_model // config.n_head
    scale = 1.0
    if config.scale_attn_weights:
        scale = 1 / d_head if config.parametrization == "mup" else 1 / math.sqrt(d_head)
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale
