"""Token ids as a model takes them. A kernel reads where they point, so every way into a model checks them first."""

from typing import Any

import numpy as np

from cgpt.recipe.flops import vocabulary
from cgpt.spec import Model


def read_tokens(tokens: Any, config: Model) -> np.ndarray:
    """The ids (B, T) int32 of sequences as lists, an array or a tensor on any device.

    Raises ValueError as `check_tokens`, and while TinyJit captures, as it would replay the model with other ids.
    """
    from cgpt.kernels.tensors import at_hand

    if isinstance(tokens, (list, tuple)):
        tokens = check_ids(tokens, config, "tokens").astype(np.int32)
    check_tokens(tokens, config)
    values = at_hand(tokens)
    if values is None:
        raise ValueError("tokens: their values are not known while TinyJit captures; call the model outside of it")
    return values


def check_tokens(tokens: Any, config: Model) -> None:
    """Raise ValueError unless `tokens`, an array or a tensor, are int32 ids (B, T) of the model, B and T from 1 to
    seq_len. The values of a tensor are looked at where they are at hand: not while a function is captured."""
    values = _int32(tokens, "tokens")
    shape = tuple(tokens.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"tokens: have shape {shape}; write (B, T): T ids of each of B sequences, at least one")
    if shape[1] > config.seq_len:
        raise ValueError(f"tokens: {shape[1]} of a sequence do not fit the model's context of {config.seq_len}")
    if values is not None:
        check_ids(values, config, "tokens")


def check_targets(targets: Any, tokens: Any, config: Model) -> None:
    """Raise ValueError unless `targets` of tokens (B, T) are int32 ids (B, T) or (B, T, K); below 0 is no target."""
    values = _int32(targets, "targets")
    shape = tuple(targets.shape)
    if shape[:2] != tuple(tokens.shape) or len(shape) > 3 or 0 in shape:
        raise ValueError(f"targets: have shape {shape}; those of tokens {tuple(tokens.shape)} are (B, T) or (B, T, K)")
    if values is not None and values.max() >= vocabulary(config):
        raise ValueError(f"targets: {values.max()} is no token of the model, whose last is {vocabulary(config) - 1}")


def check_positions(positions: Any, tokens: Any, config: Model) -> None:
    """Raise ValueError unless `positions` are int32 (B, 1) from 0 to seq_len - 1, one for each of the tokens (B, 1)."""
    values = _int32(positions, "positions")
    if tuple(positions.shape) != tuple(tokens.shape) or tokens.shape[1] != 1:
        raise ValueError(
            f"positions: have shape {tuple(positions.shape)}, tokens {tuple(tokens.shape)}; both are (B, 1)"
        )
    if values is not None and (values.min() < 0 or values.max() >= config.seq_len):
        raise ValueError(f"positions: {values.min()} to {values.max()} are not within 0 to {config.seq_len - 1}")


def check_ids(ids: Any, config: Model, name: str) -> np.ndarray:
    """The ids, an array or lists of whole numbers, as an array of any width.

    Raises ValueError for lists of unequal lengths, what is no whole number, and an id that is none of the model's.
    """
    try:
        values = np.asarray(ids)
    except ValueError:
        raise ValueError(f"{name}: are lists of unequal lengths; write (B, T): T ids of each of B sequences") from None
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"{name}: are {values.dtype}, not whole numbers that an array holds")
    if values.size and (values.min() < 0 or values.max() >= vocabulary(config)):
        unknown = values[(values < 0) | (values >= vocabulary(config))]
        raise ValueError(f"{name}: {unknown[0]} is no token of the model, whose are 0 to {vocabulary(config) - 1}")
    return values


def _int32(values: Any, name: str) -> np.ndarray | None:
    """The values, or None where they are not at hand."""
    from cgpt.kernels.tensors import at_hand, dtype_of

    if not hasattr(values, "shape") or dtype_of(values) != np.int32:
        what = dtype_of(values) if hasattr(values, "shape") else type(values).__name__
        raise ValueError(f"{name}: are of type {what}; write lists, or int32 as an array or a tensor")
    return at_hand(values)
