"""continuations.json: how each model of an experiment goes on where documents of the validation split begin."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgpt.errors import UserError
from cgpt.experiment.chain import Chain
from cgpt.experiment.run import LAST_FILE
from cgpt.files.encoding import REPLACEMENT
from cgpt.files.json_object import read_object
from cgpt.files.whole import write_whole
from cgpt.host import memory_bytes
from cgpt.recipe.generation_config import GenerationConfig
from cgpt.report.rows import PARTIAL, chain_of, setting_of
from cgpt.spec import Experiment

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

    from cgpt.experiment.run import Plan, Run

FILE = "continuations.json"
N_PROMPTS, PROMPT_TOKENS, MAX_NEW_TOKENS = 3, 16, 60
SAMPLING = GenerationConfig(do_sample=True, temperature=0.7, top_k=0, seed=0)
TOKENS_LOOKED_AT = 1 << 20  # from the beginning of the validation split


class Beginning(NamedTuple):
    """The first tokens of a document, which are a prompt, and the next ones; `is_cut` where it goes on after them."""

    prompt: list[int]
    followed_by: list[int]
    is_cut: bool


def continuations(experiment: Experiment, plan: Plan, results: Path, partial: bool = False) -> Path:
    """Write what the first pretrained model of each row writes after three beginnings of documents; its folder.

    It is computed on this machine's processor, whatever trained the model. `partial`: by the models that are there, in
    a folder of its own where a record of the experiment is missing. Raises UserError where a record is missing, and
    for files that are not those of their records.
    """
    if not plan.of("pretrain"):
        raise UserError(f"{experiment.name}: no model of this experiment is pretrained, and there is no text whose "
                        "beginnings could be continued; use `cgpt generate`")  # fmt: skip
    missing = [run for run in plan.runs if run.stage not in ("fetch", "tokenize") and not _path(run, results).is_file()]
    runs = plan.first_trained()
    if partial and missing:
        runs = replace(plan, runs=tuple(run for run in plan.runs if run not in missing)).first_trained()
    _refuse(experiment, plan, runs, results)
    context = min(run.spec["model"]["seq_len"] for run in runs)
    beginnings = {tokens: read_beginnings(results / "runs" / "tokens" / tokens, context)
                  for tokens in dict.fromkeys(run.needs["tokenize"] for run in runs)}  # fmt: skip
    threads, by_key = min(run.execution.threads for run in runs), {run.key: run for run in plan.runs}
    models = [
        {"model": run.spec["model"]["name"], "run": run.id, "setting": setting_of(experiment, chain_of(run, by_key)),
         "temperature": SAMPLING.temperature, "seed": SAMPLING.seed,
         "texts": continue_beginnings(_path(run, results).parent, beginnings[run.needs["tokenize"]], threads)}
        for run in runs if _fits(run)
    ]  # fmt: skip
    content = {"prompts": [text["prompt"] for text in models[0]["texts"]] if models else [], "models": models}
    folder = results / experiment.name / PARTIAL if partial and missing else results / experiment.name
    write_whole(folder / FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def read_beginnings(folder: Path, context: int) -> list[Beginning]:
    """Beginnings of three documents of a token folder's validation split: of the first that are long enough, else of
    the longest. A prompt is of whole words, and at most half of its document and of a model's context; raises
    UserError."""
    from cgpt.data.content import sha256_of
    from cgpt.data.shards import open_shard
    from cgpt.data.tokenizer import read_tokenizer

    end, tokenizer = read_object(folder / "tokens.json")["end_of_text_id"], read_tokenizer(folder)
    shard = open_shard(folder / "validation.bin", sha256_of(folder / "tokenizer.json"), check_hash=True)
    documents = _documents(shard[:TOKENS_LOOKED_AT], end)
    long_enough = [document for document in documents if len(document) >= 2 * PROMPT_TOKENS]
    if len(long_enough) < N_PROMPTS:
        long_enough = sorted(documents, key=len, reverse=True)
    beginnings = []
    for document in long_enough[:N_PROMPTS]:
        tokens = document[: PROMPT_TOKENS + MAX_NEW_TOKENS].tolist()
        n_prompt = _whole_words(tokenizer, tokens, max(1, min(PROMPT_TOKENS, len(document) // 2, context // 2)))
        followed_by = tokens[n_prompt : n_prompt + MAX_NEW_TOKENS]
        beginnings.append(Beginning(tokens[:n_prompt], followed_by, n_prompt + len(followed_by) < len(document)))
    return beginnings


def _whole_words(tokenizer: Tokenizer, tokens: list[int], n: int) -> int:
    """The most of the first n tokens after which a blank comes; n where there is none, as in Chinese."""
    ends = (k for k in range(n, 0, -1) if _after(tokenizer, tokens[:k], tokens[k : k + 1], is_cut=False)[:1].isspace())
    return next(ends, n)


def _documents(tokens: np.ndarray, end: int) -> list[np.ndarray]:
    """The tokens between end-of-text tokens, without empty documents."""
    import numpy as np

    parts = np.split(tokens, np.flatnonzero(tokens == end) + 1)
    documents = [part[:-1] if len(part) and part[-1] == end else part for part in parts]
    return [document for document in documents if len(document)]


def continue_beginnings(checkpoint: Path, beginnings: Sequence[Beginning], threads: int) -> list[dict[str, str]]:
    """The prompts as text, a model's continuation of each, which ends where its context does, and what followed.

    Half of a character at a cut is left out. Raises UserError for a damaged checkpoint.
    """
    from cgpt.checkpoint.folder import load
    from cgpt.inference.generate import Generator

    model, tokenizer = load(checkpoint, threads=threads)
    prompts = [beginning.prompt for beginning in beginnings]
    new: list[list[int]] = [[] for _ in prompts]
    if model.config.seq_len > 1:  # else the prompt alone fills the context
        stop = model.ends.stop if model.ends else ()
        new = Generator(model).generate(prompts, MAX_NEW_TOKENS, SAMPLING, stop)
    return [
        {"prompt": tokenizer.decode(prompt).rstrip(REPLACEMENT),
         "continuation": _after(tokenizer, prompt, tokens, is_cut=True),
         "followed_by": _after(tokenizer, prompt, followed_by, is_cut)}
        for (prompt, followed_by, is_cut), tokens in zip(beginnings, new)
    ]  # fmt: skip


def _after(tokenizer: Tokenizer, before: list[int], tokens: list[int], is_cut: bool) -> str:
    from cgpt.inference.stop_strings import text_after

    text = text_after(tokenizer, before, tokens)
    return text.rstrip(REPLACEMENT) if is_cut else text


def _fits(run: Run) -> bool:
    """Whether this machine's memory holds the weights; says so where it does not, as of a model that GPUs trained."""
    weights_bytes, machine_bytes = 4 * (run.execution.n_parameters or 0), memory_bytes() or math.inf
    fits = weights_bytes < machine_bytes
    if not fits:
        sizes = f"{weights_bytes / 2**30:,.1f} GiB, and this machine has {machine_bytes / 2**30:,.1f}"
        print(f"continuations: {run.id}: is left out: its weights take {sizes}", file=sys.stderr)
    return fits


def _refuse(experiment: Experiment, plan: Plan, runs: Sequence[Run], results: Path) -> None:
    """Raise UserError where a run has no record, and where it is not made of what is there now."""
    command = f"run `snakemake --cores 2 {results / experiment.name / FILE}"
    missing = [_path(run, results) for run in runs or plan.first_trained() if not _path(run, results).is_file()]
    if missing:
        some = len(missing) < len(runs)
        rest = f", or `cgpt continuations {experiment.name} --partial` for the others" if some else ""
        raise UserError(f"{missing[0]}: is missing; {command}`, which makes it{rest}")
    by_key = {run.key: run for run in plan.runs}
    chain = Chain(by_key, results / "runs", lambda stale: f"{command} --forcerun {_path(stale, results)}`")
    if problems := chain.problems(runs):
        raise UserError(*problems)


def _path(run: Run, results: Path) -> Path:
    return results / "runs" / LAST_FILE[run.stage].format(run.id)
