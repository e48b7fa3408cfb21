"""The verb `generate`: continues prompts, and shows the text at the end or as it comes."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cgpt.data.tokenizer import token_ids, unknown_id
from cgpt.errors import UserError, did_you_mean
from cgpt.experiment import load as load_files
from cgpt.files.encoding import REPLACEMENT, check_argument, read_text
from cgpt.hardware import Hardware
from cgpt.inference.stop_strings import StopStrings, text_after
from cgpt.kernels import backend
from cgpt.recipe.generation_config import GenerationConfig

BYTE = re.compile("<0x[0-9A-F]{2}>")  # a token of SentencePiece
SAMPLING = ("temperature", "top_k", "top_p")
SEARCH = ("length_penalty", "early_stopping")
OTHERS = ("num_return_sequences", "num_beams", "no_repeat_ngram_size", "repetition_penalty", "seed")


def add_verbs(add_verb: Any) -> None:
    """Add the verb to a command line, its arguments named as those of transformers' `generate`."""
    verb = add_verb("generate", generate, "continue a text with a model", group="models",
                    example="--checkpoint results/runs/pretrain/RUN --prompt 'Once upon a time'")  # fmt: skip
    add = verb.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FOLDER", help="the folder of a model and its tokenizer")
    add("--prompt", action="append", default=[], help="a text to continue; may be given several times")
    add("--prompt-file", type=Path, action="append", default=[], help="a file that holds one prompt")
    length = verb.add_mutually_exclusive_group()
    length.add_argument("--max-length", type=int, help="tokens of prompt and continuation together")
    length.add_argument("--max-new-tokens", type=int, default=20, help="tokens of the continuation (default 20)")
    add("--greedy", action="store_true", help="take the most likely token every time, instead of drawing one")
    add("--temperature", type=float, help="divides the logits: below 1 less is left to chance (default 1)")
    add("--top-k", type=int, help="draw from the k most likely tokens; 0 is all (default 50)")
    add("--top-p", type=float, help="draw from the fewest tokens that together have this probability (default 1)")
    add("--num-return-sequences", type=int, default=1, help="continuations of each prompt (default 1)")
    add("--num-beams", type=int, default=1, help="more than 1: beam search, with nothing drawn (default 1)")
    add("--length-penalty", type=float, help="beam search: above 0 prefers long texts (default 1)")
    add("--early-stopping", choices=("true", "false", "never"), help="beam search: when it ends (default false)")
    add("--no-repeat-ngram-size", type=int, default=0, help="no run of so many tokens comes twice; 0 is off")
    add("--repetition-penalty", type=float, default=1.0, help="above 1: tokens that were there become less likely")
    add("--stop", action="append", default=[], help="a text that ends a continuation; may be given several times")
    add("--seed", type=int, default=0, help="what is drawn is the same for the same seed (default 0)")
    add("--stream", action="store_true", help="print the text of one continuation as it comes")
    add("--no-verify", action="store_true", help="open a checkpoint whose files are not those that its run wrote")
    add("--hardware", default="cpu", help="a file of hardware_profiles: cpu-int8 rounds the weights")
    add("--threads", type=int, help="default: one per core")


def generate(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Continue the prompts; the continuations as a mapping, and as text to print. Raises UserError."""
    config, texts = _config(arguments), _prompts(arguments)
    stops = [check_argument(stop, "stop") for stop in arguments.stop]
    if "" in stops:
        raise UserError("stop: is empty; write a text that ends a continuation, or leave it out")
    if arguments.stream:
        _check_stream(arguments, config, len(texts))
    from cgpt.checkpoint.folder import load
    from cgpt.inference.generate import Generator, check_prompts  # loads kernels, for which no wrong argument waits

    hardware = _profile(arguments.hardware)
    backend.open_devices(hardware)
    model, tokenizer = load(arguments.checkpoint, hardware, arguments.threads, not arguments.no_verify)
    prompts, context = [encode(text, tokenizer) for text in texts], model.config.seq_len
    check_prompts(prompts, model.config)
    limits = [min(_max_new_tokens(arguments, len(prompt)), context - len(prompt)) for prompt in prompts]
    stop_ids, stop = model.ends.stop if model.ends else (), StopStrings(tokenizer, stops)
    stream = Stream(texts[0], prompts[0], tokenizer) if arguments.stream else None
    on_token = (lambda _, token: stream.add(token)) if stream else None
    started = time.perf_counter()
    new_tokens = Generator(model).generate(prompts, limits, config, stop_ids, stop, on_token)
    seconds = time.perf_counter() - started
    if stream:
        stream.end()
    continuations = []
    for i, new in enumerate(new_tokens):
        n = i // config.num_return_sequences
        at_end = "stop" if len(new) < limits[n] or stop(new) else "length"
        text = text_after(tokenizer, prompts[n], new)
        continuations.append({"prompt": texts[n], "text": text, "tokens": new, "finish_reason": at_end})
        if at_end == "length" and len(prompts[n]) + len(new) == context:
            print(f"generate: continuation {i} ends where the context of {context} tokens is full", file=sys.stderr)
    n_new = sum(map(len, new_tokens))
    print(f"generate: {n_new:,} new tokens in {seconds:.1f} s, {n_new / seconds:,.0f} tokens/s", file=sys.stderr)
    result = {
        "checkpoint": str(arguments.checkpoint),
        "hardware": hardware.name,
        "weights_dtype": hardware.weights_dtype,
        "continuations": continuations,
        "n_new_tokens": n_new,
        "seconds": seconds,
        "settings": asdict(config),
    }
    return result, "" if stream else _as_text(continuations)


def _config(arguments: argparse.Namespace) -> GenerationConfig:
    do_sample = not arguments.greedy and arguments.num_beams == 1
    idle = [] if do_sample else [(name, "a sample, which --greedy and --num-beams exclude") for name in SAMPLING]
    idle += [(name, "beam search, which needs --num-beams above 1") for name in SEARCH if arguments.num_beams == 1]
    problems = [
        f"{name}: is for {what}; leave one of them out" for name, what in idle if getattr(arguments, name) is not None
    ]
    if problems:
        raise UserError(*problems)
    given = {name: getattr(arguments, name) for name in (*SAMPLING, *SEARCH, *OTHERS)}
    if arguments.early_stopping in ("true", "false"):
        given["early_stopping"] = arguments.early_stopping == "true"
    return GenerationConfig(do_sample, **{name: value for name, value in given.items() if value is not None})


def _profile(name: str) -> Hardware:
    profiles = load_files.read_anywhere().hardware
    if name not in profiles:
        raise UserError(f"hardware_profiles: there is no hardware profile '{name}'; {did_you_mean(name, profiles)}")
    return profiles[name]


def _prompts(arguments: argparse.Namespace) -> list[str]:
    texts = [check_argument(text, "prompt") for text in arguments.prompt]
    for path in arguments.prompt_file:
        texts.append(read_text(path, "name a file that holds a prompt").removesuffix("\n"))  # which an editor adds
    if not texts:
        raise UserError('prompt: is missing; write --prompt "..." or --prompt-file FILE')
    return texts


def _check_stream(arguments: argparse.Namespace, config: GenerationConfig, n_prompts: int) -> None:
    if n_prompts > 1 or config.rows > 1:
        raise UserError("stream: shows one continuation; give one prompt, without num_return_sequences and num_beams")
    if arguments.json:
        raise UserError("stream: prints text as it comes, and --json one object at the end; leave one of them out")


def _max_new_tokens(arguments: argparse.Namespace, n_prompt: int) -> int:
    if arguments.max_length is None:
        if arguments.max_new_tokens < 1:
            raise UserError(f"max_new_tokens: is {arguments.max_new_tokens}; write a whole number above 0")
        return arguments.max_new_tokens
    if arguments.max_length <= n_prompt:
        raise UserError(
            f"max_length: is {arguments.max_length}, and the prompt alone has {n_prompt} tokens; write more"
        )
    return arguments.max_length - n_prompt


def encode(text: str, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a prompt, with those that the tokenizer adds to a text.

    Raises UserError where the tokenizer does not know a character of it.
    """
    ids = token_ids(tokenizer, text, add_special_tokens=True)
    unknown = _unknown(text, tokenizer)
    if unknown and tokenizer.normalizer:  # which may have left characters out, or made one of two
        unknown = _unknown(tokenizer.normalizer.normalize_str(text), tokenizer)
    if unknown:
        raise UserError(f"prompt: {unknown!r} is unknown to the tokenizer; leave it out")
    return ids


def _unknown(text: str, tokenizer: Tokenizer) -> str:
    """The visible characters of a text that no token stands for."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    no_token = unknown_id(tokenizer)
    known = {at for id_, span in zip(encoding.ids, encoding.offsets) if id_ != no_token for at in range(*span)}
    return "".join(c for at, c in enumerate(text) if at not in known and not c.isspace())


def _as_text(continuations: list[dict[str, Any]]) -> str:
    whole = [entry["prompt"] + entry["text"] for entry in continuations]
    return whole[0] if len(whole) == 1 else "\n\n".join(f"{i}: {text}" for i, text in enumerate(whole))


class Stream:
    """Prints a prompt and the text of tokens after it as they come; bytes of an unfinished character wait."""

    def __init__(self, text: str, prompt: Sequence[int], tokenizer: Tokenizer):
        self._tokenizer, self._prompt, self._tokens, self._n_shown = tokenizer, prompt, list[int](), 0
        print(text, end="", flush=True)

    def add(self, token: int) -> None:
        """Print what the token completes."""
        self._tokens.append(token)
        if BYTE.fullmatch(self._tokenizer.id_to_token(token) or ""):  # one wrong byte makes all of a run wrong
            return
        self._show(self._text().rstrip(REPLACEMENT))  # which stands for bytes without a character

    def end(self) -> None:
        """Print what is left, and end the line."""
        self._show(self._text() + "\n")

    def _text(self) -> str:
        return text_after(self._tokenizer, self._prompt, self._tokens)

    def _show(self, text: str) -> None:
        print(text[self._n_shown :], end="", flush=True)
        self._n_shown = max(self._n_shown, len(text))
