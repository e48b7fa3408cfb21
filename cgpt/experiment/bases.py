"""Keys that an entry has from its `base`: all that it does not write itself, but nothing that what it writes stands
against. A hardware profile has no evidence of a machine that it is not: a cost model's constants are inherited by any
profile; how far they were measured is not."""

from collections.abc import Callable
from typing import Any

from cgpt.experiment.rules import ORIGINS
from cgpt.spec import LENGTHS

BLOCKS = ("data", "train", "finetune")  # of an experiment, which are merged key by key
ALTERNATIVES = (LENGTHS, ("warmup_fraction", "warmup_tokens"), ORIGINS)  # of which an entry has one
# Keys that mean something beside certain values alone.
MEANINGFUL: dict[str, Callable[[dict[str, Any]], bool]] = {
    "decay_fraction": lambda keys: keys.get("schedule") == "wsd",
    "seed": lambda keys: "builtin" in keys,
} | {f"mup_{name}": lambda keys: keys.get("parametrization") == "mup"
     for name in ("base_width", "embedding_scale", "output_alpha")}  # fmt: skip

# Keys by which a profile is another machine than its base; of the blocks `gpu` and `wafer` all but those below.
MACHINE = ("peak_flops_per_s", "memory_bytes", "bandwidth_bytes_per_s")
SAME_MACHINE = frozenset({"host_memory_bytes", "max_systems", "compile_s", "programming_s", "weight_send_bytes_per_s",
                          "checkpoint_bytes_per_s"})  # fmt: skip
# How far a block's constants were measured, and what says that they were not.
_NOTHING: dict[str, Any] = {"measured_systems": 0, "measured_d_model": [], "inference_d_model": []}
EVIDENCE = {
    "gpu": _NOTHING | {"measured_inference_systems": 0},
    "wafer": _NOTHING | {"decode_grid": [], "prefill_grid": []},
}
COMPUTES = (
    "device",
    "dtype",
    "weights_dtype",
    "kernels",
    "systems",
    "beam",
    "peak_flops_per_s",
    "resources",
)  # decide how fast it is


def extended_experiment(base: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `written`, and in blocks that both have key by key.

    A key that is written in `train:` also replaces what the base says of it in `vary:` and `per_model:`; an axis that
    is written in `vary:` replaces the block's alternatives to it.
    """
    blocks = {key: extended(base[key], written[key]) for key in BLOCKS
              if isinstance(written.get(key), dict) and isinstance(base.get(key), dict)}  # fmt: skip
    merged = {**base, **written, **blocks}
    if "vary" not in written and isinstance(base.get("vary"), dict):
        merged["vary"] = {axis: values for axis, values in base["vary"].items() if not _is_written(axis, written)}
    if "per_model" not in written and isinstance(base.get("per_model"), dict):
        merged["per_model"] = {name: _without_written(row, written) for name, row in base["per_model"].items()}
    axes = written["vary"] if isinstance(written.get("vary"), dict) else {}
    for block in (block for block in BLOCKS if isinstance(merged.get(block), dict)):
        merged[block] = {key: value for key, value in merged[block].items() if key in written.get(block, ())
                         or not any(f"{block}.{other}" in axes for other in _alternatives(key))}  # fmt: skip
    return merged


def _is_written(axis: str, written: dict[str, Any]) -> bool:
    """Whether the key of an axis, or an alternative to it, is written in its block."""
    block, _, key = axis.partition(".")
    keys = written.get(block)
    return isinstance(keys, dict) and any(other in keys for other in (key, *_alternatives(key)))


def _without_written(row: Any, written: dict[str, Any]) -> Any:
    """A row of `per_model:` of a base, without keys of its `train:` that are written for all models."""
    if not isinstance(row, dict) or not isinstance(row.get("train"), dict):
        return row
    kept = {key: value for key, value in row["train"].items() if not _is_written(f"train.{key}", written)}
    return {**row, "train": kept}


def _alternatives(key: str) -> set[str]:
    """The other keys of which an entry has one."""
    return {other for keys in ALTERNATIVES if key in keys for other in keys} - {key}


def extended(base: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `written`, without those of the base that are an alternative to one of them, or that
    mean nothing beside them."""
    replaced = {key for keys in ALTERNATIVES if written.keys() & set(keys) for key in keys}
    merged = {key: value for key, value in base.items() if key not in replaced} | written
    return {key: value for key, value in merged.items()
            if key in written or key not in MEANINGFUL or MEANINGFUL[key](merged)}  # fmt: skip


def with_base(base: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `written`, block by block. Evidence that is not written anew is gone where it is another
    machine: the cost model then marks its every answer as extrapolated."""
    merged = overlaid(base, written)
    if any(merged.get(key) != base.get(key) for key in COMPUTES) and "sustained_flops_per_s" not in written:
        merged.pop("sustained_flops_per_s", None)
        merged.pop("sustained_on", None)
    for block, nothing in EVIDENCE.items():
        if isinstance(merged.get(block), dict) and isinstance(base.get(block), dict) and _differ(base, merged, block):
            merged[block] = {**merged[block], **nothing, **(written.get(block) or {})}
    return merged


def overlaid(base: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `written`, block by block."""
    blocks = {key: overlaid(base[key], value) for key, value in written.items()
              if isinstance(value, dict) and isinstance(base.get(key), dict)}  # fmt: skip
    return {**base, **written, **blocks}


def _differ(base: dict[str, Any], merged: dict[str, Any], block: str) -> bool:
    """Whether the two are different machines, as far as the constants of `block` are about them."""
    keys = (*MACHINE, "dtype") if block == "gpu" else MACHINE
    physical = [{key: value for key, value in of[block].items() if key not in SAME_MACHINE | EVIDENCE[block].keys()}
                for of in (base, merged)]  # fmt: skip
    return any(merged.get(key) != base.get(key) for key in keys) or physical[0] != physical[1]
