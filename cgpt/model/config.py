"""config.json of GPT-2 (model_type `gpt2`) and of its muP form (`btlm`) as a row of models.yaml, and the other way."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from cgpt.errors import UserError
from cgpt.files.encoding import without_lone_surrogates
from cgpt.files.json_object import AGAIN
from cgpt.recipe import parametrization
from cgpt.spec import Model

# Our names of what config.json calls by GPT-2's names.
NAMES = {
    "n_layer": "n_layer", "d_model": "n_embd", "n_head": "n_head", "seq_len": "n_positions", "d_ffn": "n_inner",
    "vocab_size": "vocab_size", "activation": "activation_function", "layer_norm_epsilon": "layer_norm_epsilon",
    "tie_embeddings": "tie_word_embeddings", "scale_attn_weights": "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx", "init_std": "initializer_range",
}  # fmt: skip
ALIASES = {"hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
           "num_hidden_layers": "n_layer"}  # fmt: skip
# What transformers' GPT2Config and Cerebras's BTLMConfig take for a key that a file leaves out.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
    "tie_word_embeddings": True, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
}  # fmt: skip
MUP_DEFAULTS = {"mup_width_scale": 1.0, "mup_embeddings_scale": 1.0, "mup_output_alpha": 1.0}
BY_D = "mup_scale_qk_dot_by_d"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "relu": "relu"}
LARGEST, MOST_LAYERS = 2**31 - 1, 10_000  # what a 32-bit index reaches, and far more layers than anybody trained
DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
NO_CHECKPOINT = "name a checkpoint folder, or run its stage first"


def _is_size(value: Any, largest: int = LARGEST) -> bool:
    return type(value) is int and 1 <= value <= largest


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


# What each key may hold, and that in words.
EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n_layer": (lambda value: _is_size(value, MOST_LAYERS), "a whole number above 0"),
    **dict.fromkeys(("n_embd", "n_head", "n_positions", "vocab_size"), (_is_size, "a whole number above 0")),
    "n_inner": (lambda value: value is None or _is_size(value), "a whole number or null"),
    **dict.fromkeys(("tie_word_embeddings", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
                    (lambda value: isinstance(value, bool), "true or false")),
    **dict.fromkeys(("layer_norm_epsilon", "initializer_range", *MUP_DEFAULTS), (_is_positive, "a number above 0")),
    **dict.fromkeys(DROPOUTS, (lambda value: value is None or (_is_number(value) and 0 <= value <= 1),
                               "a share from 0 to 1")),
    "name": (lambda value: isinstance(value, str), "a text"),
    "residual_init_std": (lambda value: value is None or _is_positive(value), "a number above 0"),
}  # fmt: skip
# Keys that would change what the model computes, and the one value of each that this GPT has.
ONLY: dict[str, Any] = {"add_cross_attention": False, "is_encoder_decoder": False, "position_embedding_type": "learned"}
# Keys that change nothing in the logits of a float32 model; transformers writes many of them into every file.
INERT = frozenset(
    "model_type architectures auto_map _name_or_path name_or_path transformers_version torch_dtype dtype use_cache "
    "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id prefix "
    "tokenizer_class task_specific_params problem_type id2label label2id num_labels _num_labels finetuning_task "
    "output_attentions output_hidden_states output_past output_scores return_dict return_dict_in_generate is_decoder "
    "summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj n_ctx n_special "
    "predict_special_tokens reorder_and_upcast_attn chunk_size_feed_forward gradient_checkpointing torchscript "
    "use_bfloat16 tf_legacy_loss tie_encoder_decoder cross_attention_hidden_size max_length min_length do_sample "
    "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty "
    "length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences "
    "remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens "
    "forced_bos_token_id forced_eos_token_id _attn_implementation_autoset _commit_hash".split()
)


def to_json(config: Model) -> dict[str, Any]:
    """The content of a model's config.json. Only a model without muP's multipliers is a `gpt2` to transformers."""
    written = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    written |= {"initializer_range": parametrization.base_init_std(config), "name": config.name}
    written |= dict.fromkeys(DROPOUTS, 0.0)
    if config.residual_init_std is not None:
        written["residual_init_std"] = config.residual_init_std
    if config.parametrization == "sp":
        return written | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    return written | {
        "model_type": "btlm",
        "architectures": ["BTLMLMHeadModel"],
        "position_embedding_type": "learned",
        BY_D: True,
        "mup_width_scale": config.mup_base_width / config.d_model,
        "mup_embeddings_scale": config.mup_embedding_scale,
        "mup_output_alpha": config.mup_output_alpha,
    }


def from_json(raw: dict[str, Any], name: str, where: str) -> Model:
    """The model that a config.json says; `where` starts each problem's line.

    Raises UserError for what is wrong in it, and by name for each option that this GPT does not have.
    """
    given = DEFAULTS | MUP_DEFAULTS | {ALIASES.get(key, key): value for key, value in raw.items()}
    if problems := [*_of_another_kind(given)] or [*_wrong(given), *_unknown(given)]:
        raise UserError(*(f"{where}: {problem}" for problem in problems))
    given["activation_function"] = ACTIVATIONS[given["activation_function"]]
    row = {ours: given[theirs] for ours, theirs in NAMES.items()}
    name, _ = without_lone_surrogates(given.get("name", name))
    return Model(name, **row, **_mup(given), residual_init_std=given.get("residual_init_std"))


def _wrong(given: dict[str, Any]) -> Iterator[str]:
    wrong = [f"{key}: is {_shown(given[key])}, {words} is expected; {AGAIN}"
             for key, (holds, words) in EXPECTED.items() if key in given and not holds(given[key])]  # fmt: skip
    yield from wrong
    if not wrong and given["n_embd"] % given["n_head"]:
        yield f"n_embd: {given['n_embd']} is not divisible by n_head {given['n_head']}; {AGAIN}"
    activation = given["activation_function"]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        yield (f"activation_function: {_shown(activation)} is not implemented; take a checkpoint with one of "
               + ", ".join(ACTIVATIONS))  # fmt: skip
    scaled = any(given[key] != value for key, value in MUP_DEFAULTS.items())
    if scaled and (by_d := given.get(BY_D, False)) is not True:
        yield (f"{BY_D}: is {by_d!r} beside other mup_* keys, only true is implemented there; take a checkpoint that "
               "has it")  # fmt: skip


def _of_another_kind(given: dict[str, Any]) -> Iterator[str]:
    """The problem of a model that is no GPT-2, whose other keys mean other things."""
    kind = given.get("model_type", "gpt2")
    if kind not in ("gpt2", "btlm"):
        yield (f"model_type: {_shown(kind)} is not implemented; take a checkpoint of gpt2, or of btlm with learned "
               "positions")  # fmt: skip


def _unknown(given: dict[str, Any]) -> Iterator[str]:
    """Options that would be ignored: those that are known to change the model, and those that nobody here knows."""
    for key, value in ONLY.items():
        if key in given and given[key] != value:
            yield f"{key}: is {_shown(given[key])}, only {value!r} is implemented; take a checkpoint without it"
    known = {*DEFAULTS, *EXPECTED, *ONLY, BY_D} | INERT
    for key, value in given.items():
        if key not in known and value not in (None, False, {}, []):
            yield f"{key}: is no option that is implemented; remove it if the model computes the same without it"


def _shown(value: Any) -> str:
    """A value as messages show it; of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _mup(given: dict[str, Any]) -> dict[str, Any]:
    """The muP keys of a model row; empty where a file has no multiplier.

    BTLM computes (wte + wpe) * mup_embeddings_scale, q k / d_head where mup_scale_qk_dot_by_d is true, and logits
    * mup_output_alpha * mup_width_scale (cerebras/btlm-3b-8k-base, modeling_btlm.py).
    """
    if given.get(BY_D) is not True:
        return {}
    return {
        "parametrization": "mup",
        "mup_base_width": round(given["mup_width_scale"] * given["n_embd"], 6),
        "mup_embedding_scale": float(given["mup_embeddings_scale"]),
        "mup_output_alpha": float(given["mup_output_alpha"]),
    }
