"""config.json of GPT-2 (model_type `gpt2`) and of its muP form (`btlm`) as a row of models.yaml, and the other way."""

from __future__ import annotations

import sys
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
OURS = ("name", "residual_init_std")  # keys that only checkpoints of this project have
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "relu": "relu"}
SIZES = ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")
LARGEST, MOST_LAYERS = 2**31 - 1, 10_000  # what a 32-bit index reaches, and far more layers than anybody trained
FLAGS = ("tie_word_embeddings", "scale_attn_weights", "scale_attn_by_inverse_layer_idx")
POSITIVE = ("layer_norm_epsilon", "initializer_range")
DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
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
    """What config.json says of a model. Only a model without muP's multipliers is a `gpt2` to transformers."""
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
        "mup_scale_qk_dot_by_d": True,
        "mup_width_scale": config.mup_base_width / config.d_model,
        "mup_embeddings_scale": config.mup_embedding_scale,
        "mup_output_alpha": config.mup_output_alpha,
    }


def from_json(raw: dict[str, Any], name: str, where: str) -> Model:
    """The model that a config.json says; `where` starts each problem's line.

    Raises UserError for what is wrong in it, and by name for each option that this GPT does not have.
    """
    said = {ALIASES.get(key, key): value for key, value in raw.items()}
    given = DEFAULTS | {key: value for key, value in said.items() if key in DEFAULTS}
    problems = [f"{where}: {problem}" for problem in (*_wrong(given), *_wrong_extras(said), *_unknown(said))]
    mup, more = _mup(said, given)
    problems += [f"{where}: {problem}" for problem in more]
    if problems:
        raise UserError(*problems)
    given["activation_function"] = ACTIVATIONS[given["activation_function"]]
    row = {ours: given[theirs] for ours, theirs in NAMES.items()}
    name, _ = without_lone_surrogates(raw.get("name", name))
    return Model(name, **row, **mup, residual_init_std=raw.get("residual_init_std"))


def _wrong(given: dict[str, Any]) -> list[str]:
    problems = [
        f"{key}: is {_shown(given[key])}, a whole number above 0 is expected; get the file again"
        for key in SIZES
        if not _is_size(given[key], MOST_LAYERS if key == "n_layer" else LARGEST)
    ]
    if given["n_inner"] is not None and not _is_size(given["n_inner"], LARGEST):
        problems.append(f"n_inner: is {_shown(given['n_inner'])}, a whole number or null is expected; {AGAIN}")
    problems += [
        f"{key}: is {_shown(given[key])}, true or false is expected; get the file again"
        for key in FLAGS
        if not isinstance(given[key], bool)
    ]
    problems += [
        f"{key}: is {_shown(given[key])}, a number above 0 is expected; get the file again"
        for key in POSITIVE
        if not _is_number(given[key]) or not given[key] > 0
    ]
    if not problems and given["n_embd"] % given["n_head"]:
        problems.append(f"n_embd: {given['n_embd']} is not divisible by n_head {given['n_head']}; get the file again")
    if not isinstance(given["activation_function"], str) or given["activation_function"] not in ACTIVATIONS:
        problems.append(
            f"activation_function: {_shown(given['activation_function'])} is not implemented; take a checkpoint with "
            "one of " + ", ".join(ACTIVATIONS)
        )
    return problems


def _wrong_extras(said: dict[str, Any]) -> list[str]:
    """Problems of keys that a file need not have."""
    problems = [
        f"{key}: is {_shown(said[key])}, a share from 0 to 1 is expected; get the file again"
        for key in DROPOUTS
        if said.get(key) is not None and not (_is_number(said[key]) and 0 <= said[key] <= 1)
    ]
    if not isinstance(said.get("name", ""), str):
        problems.append(f"name: is {_shown(said['name'])}, a text is expected; get the file again")
    std = said.get("residual_init_std")
    if std is not None and not (_is_number(std) and std > 0):
        problems.append(f"residual_init_std: is {_shown(std)}, a number above 0 is expected; get the file again")
    return problems


def _is_size(value: Any, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float holds."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _shown(value: Any) -> str:
    """A value as messages show it; of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _unknown(said: dict[str, Any]) -> list[str]:
    """Options that would be ignored: those that are known to change the model, and those that nobody here knows."""
    kind = said.get("model_type", "gpt2")
    if kind not in ("gpt2", "btlm"):
        instead = "take a checkpoint of gpt2, or of btlm with learned positions"
        return [f"model_type: {_shown(kind)} is not implemented; {instead}"]
    problems = [
        f"{key}: is {_shown(said[key])}, only {value!r} is implemented; take a checkpoint without it"
        for key, value in ONLY.items()
        if key in said and said[key] != value
    ]
    known = {*DEFAULTS, *MUP_DEFAULTS, "mup_scale_qk_dot_by_d", *DROPOUTS, *ONLY, *OURS} | INERT
    return problems + [
        f"{key}: is no option that is implemented; remove it if the model computes the same without it"
        for key, value in said.items()
        if key not in known and value not in (None, False, {}, [])
    ]


def _mup(said: dict[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The muP keys of a model row, and problems; empty where a file has no multiplier.

    BTLM computes (wte + wpe) * mup_embeddings_scale, q k / d_head where mup_scale_qk_dot_by_d is true, and logits
    * mup_output_alpha * mup_width_scale (cerebras/btlm-3b-8k-base, modeling_btlm.py).
    """
    scales = MUP_DEFAULTS | {key: said[key] for key in MUP_DEFAULTS if key in said}
    problems = [
        f"{key}: is {_shown(value)}, a number above 0 is expected; get the file again"
        for key, value in scales.items()
        if not _is_number(value) or not value > 0
    ]
    by_d = said.get("mup_scale_qk_dot_by_d", False)
    if by_d is not True and scales != MUP_DEFAULTS:
        problems.append(f"mup_scale_qk_dot_by_d: is {by_d!r} beside other mup_* keys, only true is implemented there; "
                        "take a checkpoint that has it")  # fmt: skip
    if problems or by_d is not True:
        return {}, problems
    return {
        "parametrization": "mup",
        "mup_base_width": round(scales["mup_width_scale"] * given["n_embd"], 6),
        "mup_embedding_scale": float(scales["mup_embeddings_scale"]),
        "mup_output_alpha": float(scales["mup_output_alpha"]),
    }, []
