"""Options of a generation task: `generation_kwargs` as lm-evaluation-harness reads them."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from cgpt.errors import UserError, did_you_mean
from cgpt.files.yaml_file import as_list
from cgpt.recipe.generation_config import GenerationConfig

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # one thing; the first given counts
DEFAULT_LENGTH = 256  # lm-evaluation-harness's
OF_SAMPLING = ("temperature", "top_k", "top_p")
OF_BEAMS = ("length_penalty", "early_stopping")
SETTINGS = {field.name: type(field.default) for field in fields(GenerationConfig)
            if field.name != "num_return_sequences"}  # fmt: skip
KNOWN = (*LENGTHS, "until", *SETTINGS)
INSTEAD = {
    "max_length": "counts the prompt too; write max_gen_toks",
    "num_return_sequences": "one answer is scored; leave it out",
}


class Decoding(NamedTuple):
    """`max_new_tokens` None: the task does not say; `until`: texts that end an answer."""

    max_new_tokens: int | None
    until: list[str]
    config: GenerationConfig


def read_options(options: dict[str, Any]) -> Decoding:
    """Length, stops and settings of a request's options, by lm-evaluation-harness's own normalisation. Raises UserError
    by name for options that the decoder does not offer."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if problems := [f"generation_kwargs.{key}: {what}" for key, what in unsupported(options)]:
        raise UserError(*problems)
    given = normalize_gen_kwargs({key: value for key, value in options.items() if value is not None})
    settings = {key: given[key] for key in SETTINGS if key in given}
    settings |= {key: float(value) for key, value in settings.items() if SETTINGS[key] is float}
    if not settings["do_sample"]:
        settings = {key: value for key, value in settings.items() if key not in OF_SAMPLING}
    length = given["max_gen_toks"] if any(options.get(key) is not None for key in LENGTHS) else None
    return Decoding(length, [text for text in given["until"] if text], GenerationConfig(**settings))


def n_new_tokens(asked: int | None, seq_len: int) -> int:
    """The most new tokens of an answer: those that the task asks for, else 256, or half of the window if that is less.

    Raises UserError where that leaves a model of `seq_len` no room for a prompt.
    """
    if asked is None:
        return min(DEFAULT_LENGTH, max(1, seq_len // 2))
    if asked >= seq_len:
        raise UserError(f"generation_kwargs: an answer of {asked} tokens leaves a model of seq_len {seq_len} no room "
                        "for the prompt; write fewer")  # fmt: skip
    return asked


def unsupported(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each option that the decoder does not offer, or whose value it cannot use, with what is wrong."""
    for key, value in options.items():
        if key not in KNOWN:
            yield key, INSTEAD.get(key) or f"is nothing that answers are written with here; {did_you_mean(key, KNOWN)}"
        elif key in LENGTHS and value is not None and (type(value) is not int or value < 1):
            yield key, f"must be a whole number of tokens above 0, not {value!r}; write e.g. 64"
        elif key == "until" and not all(
            isinstance(text, str) for text in (value if isinstance(value, list) else [value])
        ):
            yield key, f"must be a text or a list of texts, not {value!r}; write e.g. ['\\n']"
        elif key in SETTINGS and value is not None and not _is_usable(key, value):
            yield key, f"does not fit: {value!r}; write {'true or false' if key == 'do_sample' else 'a number'}"
    if options.get("do_sample") is True and not options.get("temperature"):
        yield "temperature", "is missing or 0, and do_sample needs it; write a number above 0"
        return
    settings = {key: options[key] for key in SETTINGS if options.get(key) is not None and _is_usable(key, options[key])}
    if not settings.get("temperature") or settings.get("do_sample") is False:
        settings.pop("temperature", None)
    try:
        GenerationConfig(**settings | ({"do_sample": True} if "temperature" in settings else {}))
    except UserError as error:
        for problem in error.problems:
            key, _, what = problem.partition(": ")
            yield key, what


def without_effect(options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each option that another one makes void, with what to do."""
    if "" in as_list(options.get("until")):
        yield "until", "an empty text ends no answer; remove it"
    lengths = [key for key in LENGTHS if options.get(key) is not None]
    for key in lengths[1:]:
        yield key, f"says the same as {lengths[0]}, which counts; remove one of the two"
    sampled = options.get("do_sample", bool(options.get("temperature")))
    for key in () if sampled else OF_SAMPLING:
        if options.get(key):
            yield key, "has no effect on the most likely answer; write do_sample: true, or remove it"
    for key in () if (options.get("num_beams") or 1) != 1 else OF_BEAMS:
        if options.get(key) is not None:
            yield key, "has no effect without beams; write num_beams, or remove it"


def _is_usable(key: str, value: Any) -> bool:
    kind = SETTINGS[key]
    if key == "early_stopping":
        return isinstance(value, (bool, str))
    return type(value) is kind or (kind is float and type(value) is int)
